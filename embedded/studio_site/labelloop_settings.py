"""Label Studio's own Django settings and two middlewares: what the embedded Label Studio runs with."""

# first, for the second one looks settings up while it is being imported
from label_studio.core.settings.base import *  # noqa: F403  # isort: skip
from label_studio.core.settings.label_studio import *  # noqa: F403
from label_studio.core.settings.label_studio import MIDDLEWARE

MIDDLEWARE = [
    "labelloop_pages.OwnPagesAlone",  # first: nothing has looked at the request yet
    *MIDDLEWARE,
    "labelloop_turns.NextTaskInTurn",  # last: nobody waits for another's sign-in
]
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]  # it listens on the loopback address; other names lead astray
