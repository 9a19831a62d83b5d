# Package name
import os

package_name = 'label-studio-ml'

# Package version
__version__ = os.environ.get("VERSION_OVERRIDE", '2.0.1dev0')
