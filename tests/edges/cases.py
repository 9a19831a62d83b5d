"""Bad inputs to commands, and words that the answer must hold: what was wrong, and what to do."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.edges.world import NOBODY

USAGE = 2  # what the shell is told where the words of a command do not fit


@dataclass(frozen=True)
class Case:
    """One command line. ``{}`` in it is the folder of bad things."""

    line: str
    says: tuple[str, ...]
    code: int = 1
    env: Mapping[str, str | None] = field(default_factory=dict)

    def words(self, folder: object) -> list[str]:
        """As a shell splits them."""
        return [word.replace("{}", str(folder)) for word in shlex.split(self.line)]


def _config(name: str, *says: str) -> Case:
    return Case(f"init --image-uri s3://edge-images/x/ --config {{}}/{name}.yaml", says)


def _backup(name: str, *says: str) -> Case:
    return Case(f"restore {{}}/{name}.tar", says)


def _set(line: str, variable: str, value: str | None, *says: str) -> Case:
    return Case(line, says, env={variable: value})


CONFIGS = (
    _config("nothere", "No such file", "name a YAML file"),
    _config("empty", "is empty", "name: pets"),
    _config("comment", "is empty", "name: pets"),
    _config("list", "no list of settings", "name: pets"),
    _config("text", "no list of settings", "name: pets"),
    _config("twice", "line 2", "'name' is given twice", "keep one"),
    _config("yes", "line 2", "yes is a boolean in YAML: write 'yes'"),
    _config("numbers", "0 is a number in YAML: write '0'"),
    _config("float", "1.0 is a number in YAML: write '1.0'"),
    _config("null", "null is nothing in YAML: write 'null'"),
    _config("dates", "2024-01-01 is a date in YAML: write '2024-01-01'"),
    _config("on", "on is a boolean in YAML: write 'on'"),
    _config("octal", "010 is a number in YAML: write '010'"),
    _config("map", "no is a boolean in YAML: write 'no'"),
    _config("inf", "refresh.throttle_s", "finite"),
    _config("nan", "refresh.throttle_s", "finite"),
    _config("big", "refresh.throttle_s", "finite"),
    _config("minus", "refresh.throttle_s", "greater than or equal to 0"),
    _config("huge", "refresh.after", "less than or equal to"),
    _config("switch", "refresh.after", "true is no number"),
    _config("percent", "stop.target", "92 % is 0.92"),
    _config("strange", "refesh", "no setting is called so"),
    _config("deep", "nested more than 30 levels"),
    _config("bomb", "stands for more than"),
    _config("self", "alias", "within what it means"),
    _config("python", "constructor", "line 1"),
    _config("broken", "line", "expected"),
    _config("tab", "line 2", "cannot start any token"),
    _config("latin", "not UTF-8", "Save it as UTF-8", "0xfc"),
    _config("binary", "UTF-8"),
    _config("nul", "control character"),
    _config("large", "more than 1,000,000 bytes"),
    _config("cron", "retrain.cron", "no cron expression"),
    _config("network", "resnet81", "near: resnet18"),
    _config("weights", "no weights for resnet18", "LABELLOOP_WEIGHTS"),
    _config("file", "nothere.safetensors", "neither a file nor in"),
    _config("options", "backbone.options do not fit", "colour"),
    _config("set", "line 1", "!!set is no setting", "plain text"),
    _config("bytes", "line 1", "!!binary is no setting"),
    _config("half", "line 1", "half of a character", "take it out"),
    _config("person", "weights.annotators", "true is no number"),
    _config("many", "no setting is called so", "and 480 more"),
    _config("never", "retrain.cron", "names no time that comes", "every day at three"),
    _config("chance", "retrain.cron", "names no time that comes"),
    _config("untrained", "leave no image to train on", "below 1"),
    _config("tag", "'resnet18.x'", "timm does not know", "it knows resnet18."),
    _config("nobody", "head.members", "empty list"),
    _config("vast", "backbone.options do not fit"),
    _config("short", "'ab'", "3 to 50 characters", "name:"),
    _config("long", "has 51", "3 to 50 characters"),
    _config("slash", "'a/../b'", "name:"),
    _config("blank", "no class can be called ' '"),
    _config("same", "'cat' is listed twice"),
    _config("one", "two or more, and has 1", "--classes"),
    Case("init --image-uri s3://edge-images/x/ --config {}", ("Is a directory", "name a YAML file")),
)
PLACES = (
    Case("init", ("needs --image-uri", "--images")),
    Case("init --image-uri http://edge-images/x/", ("not in an allowed bucket", "LABELLOOP_IMAGE_BUCKETS")),
    Case("init --image-uri s3://other/x/", ("not in an allowed bucket", "edge-images")),
    Case("init --image-uri s3://edge-images/a/../b/", ("cannot be watched", "another prefix")),
    Case("init --image-uri s3://edge-images/x/ --project 99999", ("no project 99999", "/projects/NUMBER")),
    Case("init --image-uri s3://edge-images/x/ --project 0", ("greater than or equal to",), USAGE),
    Case("init --image-uri s3://edge-images/x/ --project pets", ("valid integer",), USAGE),
    Case("init --image-uri s3://edge-images/x/", ("needs its classes", "--classes")),
    Case("init --images {}/nothere", ("is not a folder", "class folders")),
    Case("init --images {}/file", ("is not a folder", "class folders")),
    Case("init --images {}/empty", ("holds no images", ".jpg")),
    Case("init --images {}/lost", ("holds no images", "are not UTF-8", "rename them")),
    Case("init --images {}/one-class", ("holds one class folder", "two or more")),
    Case("init --images {}/odd", ("no class can be called 'd\\nog'",)),
    Case("init --images {}/odd --image-uri s3://edge-images/x/", ("leave out --image-uri",)),
    Case("init --images {}/odd --labels {}/bad.csv", ("must begin with the line `file,label`",)),
    Case("init --images {}/odd --labels {}/latin.csv", ("cannot read the labels", "UTF-8")),
    Case("init --images {}/odd --labels {}/lost.csv", ("line 2", "there is no 'nothere.png'")),
    Case("init --images {}/odd --labels {}/ours.csv", ("line 2", "is no image of")),
    Case("init --images {}/odd --labels {}/nul.csv", ("line 2", "is no image of")),
    Case("init --images {}/odd --labels {}/loop.csv", ("line 2", "there is no 'round/1.png'")),
    Case("status --state-dir {}/file", ("is no folder", "choose another"), env={}),
    Case("status --state-dir {}/loop", ("is no folder", "symbolic link"), env={}),
    Case("status --state-dir {}/state", ("stack.json cannot be read", "backup")),
    Case("status --state-dir {}/state-deep", ("stack.json cannot be read", "backup")),
    Case("down --state-dir {}/file", ("is no folder", "choose another")),
    Case("up --state-dir {}/file --images {}/odd", ("no class can be called",)),
    Case("up --state-dir {}/file/below --images {}/one-class --classes cat,dog", ("holds one class folder",)),
    Case("down --state-dir {}/none", ("no stack runs on",), 0),
)
ENVIRONMENTS = (
    _set("models", "LABELLOOP_STUDIO_URL", None, "no stack runs on", "labelloop up"),
    _set("models", "LABELLOOP_STUDIO_URL", "localhost:8080", "LABELLOOP_STUDIO_URL", "http://"),
    _set("models", "LABELLOOP_STUDIO_URL", "http://[::1", "LABELLOOP_STUDIO_URL", "http://"),
    _set("models", "LABELLOOP_STUDIO_URL", "http://x:99999", "LABELLOOP_STUDIO_URL", "http://"),
    _set("models", "LABELLOOP_STUDIO_URL", "http://a b/", "LABELLOOP_STUDIO_URL", "http://"),
    _set("models", "LABELLOOP_REDIS_URL", "http://x", "LABELLOOP_REDIS_URL", "redis://"),
    _set("models", "LABELLOOP_REDIS_URL", "redis://x:port/0", "LABELLOOP_REDIS_URL", "redis://"),
    _set("models", "LABELLOOP_CACHE_MAX_GB", "lots", "LABELLOOP_CACHE_MAX_GB", "number of gigabytes"),
    _set("models", "LABELLOOP_CACHE_MAX_GB", "9" * 400, "LABELLOOP_CACHE_MAX_GB", "number of gigabytes"),
    _set("models", "LABELLOOP_METRICS_PORT", "²", "LABELLOOP_METRICS_PORT", "1 to 65535"),
    _set("models", "LABELLOOP_STUDIO_SERVER", "a-b", "LABELLOOP_STUDIO_SERVER", "letters and digits"),
    _set("models", "LABELLOOP_IMAGE_BUCKETS", " , ", "LABELLOOP_IMAGE_BUCKETS", "no bucket"),
    _set("models", "LABELLOOP_S3_ACCESS_KEY", "", "LABELLOOP_S3_ACCESS_KEY", "both, or neither"),
    _set("models", "LABELLOOP_S3_ENDPOINT", "ftp://x", "LABELLOOP_S3_ENDPOINT", "http://"),
    _set("models", "LABELLOOP_S3_REGION", "no region", "LABELLOOP_S3_REGION"),
    _set("models", "LABELLOOP_S3_ENDPOINT", NOBODY, "object storage cannot be reached", "LABELLOOP_S3_ENDPOINT"),
    _set("models", "LABELLOOP_STATE_BUCKET", "no-such-bucket", "no bucket no-such-bucket", "LABELLOOP_STATE_BUCKET"),
    _set("models", "LABELLOOP_STATE_BUCKET", "No Bucket", "Invalid bucket name"),
    _set("schema", "LABELLOOP_STUDIO_TOKEN", None, "LABELLOOP_STUDIO_TOKEN is not set", "Account & Settings"),
    _set("schema", "LABELLOOP_STUDIO_TOKEN", "wrong", "does not accept the token", "LABELLOOP_STUDIO_TOKEN"),
    _set("schema", "LABELLOOP_STUDIO_TOKEN", "two\nlines", "LABELLOOP_STUDIO_TOKEN", "copy it again"),
    _set("schema", "LABELLOOP_STUDIO_URL", NOBODY, "cannot be reached", "LABELLOOP_STUDIO_URL"),
    _set("init --image-uri s3://edge-images/x/ --classes a,b", "LABELLOOP_STUDIO_URL", "HTML", "no JSON", "proxy"),
    _set("init --image-uri s3://edge-images/x/ --classes a,b", "LABELLOOP_STUDIO_URL", "JSON", "'release'", "address"),
    _set("queue", "LABELLOOP_REDIS_URL", "redis://127.0.0.1:1/0", "Redis", "LABELLOOP_REDIS_URL"),
    _set("promote v1", "LABELLOOP_REDIS_URL", "redis://127.0.0.1:1/0", "Redis", "LABELLOOP_REDIS_URL"),
    _set("queue failed", "LABELLOOP_REDIS_URL", "redis://127.0.0.1:1/0", "Redis", "LABELLOOP_REDIS_URL"),
    Case("status --once", ("Redis", "LABELLOOP_REDIS_URL"), 0, {"LABELLOOP_REDIS_URL": "redis://127.0.0.1:1/0"}),
    _set("doctor", "LABELLOOP_STUDIO_URL", "localhost", "LABELLOOP_STUDIO_URL"),
)
NAMES = (
    Case("models --project dogs", ("no project is called 'dogs'", "pets [red]x[/]")),
    Case("models --project 'pets [red]x[/'", ("do you mean 'pets [red]x[/]'?",)),
    Case("models --project '[/nonsense]'", ("no project is called '[/nonsense]'",)),
    Case("models --project 99999", ("no project is called '99999'", "pets")),
    Case("forget 99999", ("no project is called '99999'",)),
    Case("forget ''", ("no project is called ''",)),
    Case("card v99", ("has no version v99", "the newest is v2", "labelloop models")),
    Case("card 99", ("has no version v99", "the newest is v2")),
    Case("card v²", ("has no version v²", "labelloop models")),
    Case("card v99999999999999999999", ("has no version", "labelloop models")),
    Case("card ../../x", ("has no version ../../x", "labelloop models")),
    Case("report v99", ("has no version v99", "labelloop models")),
    Case("verify v99", ("has no version v99", "labelloop models")),
    Case("auto-label v99 --dry-run", ("has no version v99", "labelloop models")),
    Case("promote 99", ("has no version v99", "the newest is v2")),
    Case("promote latest", ("has no version latest", "labelloop models")),
    Case("promote 2", ("v2 is live already", "nothing was changed"), 0),
    Case("promote V2", ("v2 is live already",), 0),
    Case("reject 99", ("has no version v99",)),
    Case("reject 2", ("v2 is live", "labelloop rollback")),
    Case("run show 99", ("no run", "99")),
    Case("run show v99", ("has no version v99",)),
    Case("snapshots diff zzz", ("no snapshot is called 'zzz'", "labelloop snapshots")),
    Case("snapshots diff v99", ("has no version v99",)),
    Case("export --format csv --out {}/x.csv --at zzz", ("no snapshot is called 'zzz'",)),
    Case("tune show nothing", ("no one study is called nothing", "labelloop tune run")),
    Case("tune cancel nothing", ("no one study is called nothing",)),
    Case("queue cancel nothing", ("not one job that runs or waits",)),
    Case("queue retry nothing", ("no failed job is called 'nothing'", "labelloop queue failed")),
    Case("queue retry", ("nothing has failed",)),
    Case("queue discard nothing", ("no failed job is called 'nothing'",)),
    Case("schema --map cat", ("--map wants OLD=NEW, not 'cat'",)),
    Case("schema --map cat=a --map cat=b", ("'cat' is mapped twice",)),
    Case("models --project x --state-dir {}/none", ("no project is called 'x'",)),
    Case("modles", ("No such command 'modles'", "models"), USAGE),
    Case("models --jsn", ("No such option", "--json"), USAGE),
    Case("sync", ("add --drain",)),
)
NUMBERS = (
    Case("curve --target nan", ("'nan' is no share", "92%"), USAGE),
    Case("curve --target inf", ("'inf' is no share",), USAGE),
    Case("curve --target=-1", ("'-1' is no share",), USAGE),
    Case("curve --target 1.5", ("'1.5' is no share",), USAGE),
    Case("curve --target 920", ("'920' is no share",), USAGE),
    Case("curve --target most", ("'most' is no share",), USAGE),
    Case("auto-label --precision 40%", ("between 0.5 and 0.9999",), USAGE),
    Case("auto-label --confidence nan", ("'nan' is no share",), USAGE),
    Case("runs --limit 0", ("greater than or equal to",), USAGE),
    Case("runs --limit -5", ("greater than or equal to",), USAGE),
    Case("runs --limit 99999999999999999999", ("less than or equal to 1000000",), USAGE),
    Case("runs --limit 1e3", ("valid integer",), USAGE),
    Case("runs --kind refesh", ("'refesh' is not one of", "refresh"), USAGE),
    Case("snapshots --limit 0", ("greater than or equal to",), USAGE),
    Case("duplicates --limit -1", ("greater than or equal to",), USAGE),
    Case("replay --images {}/odd --labels 5", ("greater than or equal to",), USAGE),
    Case("replay --images {}/odd --seeds 1", ("greater than or equal to",), USAGE),
    Case("replay --images {}/odd --strategies best", ("best", "random")),
    Case("simulate --labels 0", ("greater than or equal to",), USAGE),
    Case("simulate --skip-rate 95%", ("between 0 and 0.9",), USAGE),
    Case("simulate --people 0", ("greater than or equal to",), USAGE),
    Case("simulate --seed=-1", ("greater than or equal to",), USAGE),
    Case("tune run {}/search.yaml --trials 0", ("greater than or equal to",), USAGE),
    Case("tune run {}/search.yaml", ("space.retrain.epochs", "lower end")),
    Case("tune run {}/search-empty.yaml", ("is empty",)),
    Case("tune run {}/search-inf.yaml", ("finite",)),
    Case("tune run {}/search-far.yaml", ("name cannot be searched",)),
    Case("tune run {}/latin.yaml", ("not UTF-8",)),
    Case("tune run {}/deep.yaml", ("nested more than",)),
    Case("compare --backbones ''", ("lists no network", "resnet18")),
)
OUTPUTS = (
    Case("card --out {}", ("Is a directory", "name a file in it")),
    Case("card --out {}/file/x", ("Not a directory", "another path")),
    Case("card --out {}/none/x", ("No such file", "create its folder")),
    Case("card --out /dev/full", ("No space left", "make room")),
    Case("export --format csv --out {}", ("is a folder",)),
    Case("export --format csv --out {}/pipe", ("a device or a pipe", "name a file")),
    Case("export --format json --out {}/to-pipe", ("a device or a pipe", "name a file")),
    Case("backup --out {}/pipe", ("a device or a pipe", "name a file")),
    Case("backup --out ''", ("is a folder", "name a file")),
    Case("export --format csv --out ''", ("is a folder",)),
    Case("export --format csv --out /", ("is a folder",)),
    Case("export --format csv --out {}/none/x.csv", ("No such file", "--out")),
    Case("export --format folders --out {}/file", ("cannot write", "--out")),
    Case("export --format folders --out {}", ("no export has put there",)),
    Case("export --format xml --out {}/x", ("'xml' is not one of", "csv"), USAGE),
    Case("export --format csv --copy --out {}/x", ("--copy goes with --format folders",)),
    Case("backup --out {}", ("is a folder", "name a file")),
    Case("backup --out {}/none/x.tar", ("cannot write", "--out")),
    Case("gc --project nothing", ("no project is called 'nothing'",)),
)
BACKUPS = (
    _backup("nothere", "cannot read", "No such file"),
    Case("restore {}", ("cannot read", "directory")),
    _backup("zeros", "has no manifest"),
    _backup("text", "no tar file"),
    _backup("cut", "damaged"),
    _backup("none", "has no manifest"),
    _backup("up", "no plain object"),
    _backup("manifest-list", "manifest cannot be read"),
    _backup("manifest-rows", "does not list objects"),
    _backup("manifest-deep", "manifest cannot be read"),
    _backup("manifest-kinds", "does not list objects"),
    _backup("newer", "newer labelloop", "upgrade"),
    _backup("no-project", "holds no project.json"),
    _backup("project-empty", "'config' is missing", "another backup"),
    _backup("project-list", "JSON object", "another backup"),
    _backup("project-id", "id: Input should be a valid integer", "another backup"),
    _backup("project-config", "seed"),
    _backup("project-bucket", "s3://secrets/x/", "LABELLOOP_IMAGE_BUCKETS"),
    _backup("project-bare", "holds no studio/label_config.xml"),
)
ALL = (*CONFIGS, *PLACES, *ENVIRONMENTS, *NAMES, *NUMBERS, *OUTPUTS, *BACKUPS)
