"""`python -m bench.search`: a search preset to its end on class folders, its winner judged on images held out.

The trials are those of `labelloop tune`, one after the other in this process: they learn from the train part and are
judged by the validation part alone. Then the winner's settings become the project's and a whole cycle runs with them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import structlog
import yaml
from rich.console import Console

from bench.finetune import configured, whole_cycle
from bench.tools.offline import OfflineProject, folders, without_shared
from cli.views.tune import study_view
from labelloop.config.project import ProjectConfig
from labelloop.store.studies import Search, StudyStore, best, missing, parse_search
from operations.models.tune import StudyResults
from operations.projects.imagefolder import LabelledFile
from retrain_worker.tuning.trial import run_trial


def some(files: list[LabelledFile], count: int | None) -> list[LabelledFile]:
    """So many of them, drawn evenly; None: all."""
    order = np.random.default_rng(0).permutation(len(files))
    return files if count is None else [files[i] for i in sorted(order[:count])]


def searched(config: ProjectConfig, search: Search, files: list[LabelledFile], console: Console) -> ProjectConfig:
    """The config with the winner's settings."""
    with tempfile.TemporaryDirectory() as folder:
        world = OfflineProject(config, files, Path(folder))
        studies, began = StudyStore(world.project.store), time.monotonic()
        study = studies.begin(search, snapshot=world.snapshot, config=config, by="bench")
        while left := missing(study, studies.trials(study.name)):
            trial = run_trial(world.context, world.project, study.name, left[0])
            print(f"trial {trial.number}: {trial.state} {trial.accuracy or trial.why} {dict(trial.params)}", flush=True)
        trials = studies.trials(study.name)
        winner = best(trials)
        assert winner is not None, "every trial failed"
        console.print(study_view(StudyResults(study, trials), every=True))
        print(f"{len(trials)} trials in {time.monotonic() - began:.0f} s; best: {dict(winner.params)}")
        return study.config_with(winner.params)


def main() -> None:
    """See the module."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", type=Path, required=True, help="e.g. configs/tune/kidu.yaml")
    parser.add_argument("--trials", type=int, help="in place of the preset's number")
    parser.add_argument("--base", type=yaml.safe_load, default={}, help="over the preset's base, as YAML")
    parser.add_argument("--train", type=Path, required=True, help="class folders the project is made of")
    parser.add_argument("--test", type=Path, help="class folders held out; else a fifth of --train")
    parser.add_argument("--count", type=int, help="so many images to learn from, drawn evenly")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    given = parser.parse_args()
    asked = yaml.safe_load(given.search.read_text())
    for part, changes in given.base.items():
        asked.setdefault("base", {}).setdefault(part, {}).update(changes)
    search = parse_search({**asked, "trials": given.trials or asked["trials"]}, str(given.search))
    train, test = folders(given.train, given.test, 0.2)
    kept = some(without_shared(train, test), given.count)
    print(f"{len(kept)} images to learn from, {len(test)} held out")
    whole_cycle(searched(configured(given.config, given.set), search, kept, Console(width=200)), kept, test, None)


if __name__ == "__main__":
    main()
