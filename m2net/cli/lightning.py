"""``m2net fit|validate|test|predict``: LightningCLI on M2NetModule and BagDataModule."""

from __future__ import annotations

import re
import signal
import sys
import traceback
import warnings
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import torch
from jsonargparse import Namespace
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.exceptions import SIGTERMException

from m2net.bags.datamodule import BagDataModule
from m2net.configuration import check_yaml
from m2net.errors import ConfigError
from m2net.machine import fast_bfloat16, keep_big_blocks
from m2net.reports.results import ResultsWriter, print_scales
from m2net.reports.watching import Watcher, begin, finish, keep_curves, keep_private, take_up
from m2net.training.averaging import short_average
from m2net.training.crossval import undefined
from m2net.training.loading import hyper_parameters, read_checkpoint
from m2net.training.module import M2NetModule
from m2net.training.optimizers import DEFAULT_OPTIMIZER
from m2net.training.rescue import LastWeights, check_writable, keep_last, nothing_kept
from m2net.training.tuning import Tuning


class SaveConfig(SaveConfigCallback):
    """Write the resolved configuration beside the results, and hand it to every logger."""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Write ``config.yaml`` of the run's folder (``config_STAGE.yaml`` for other stages than fit)."""
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        name = "config.yaml" if stage == "fit" else f"config_{getattr(stage, 'value', stage)}.yaml"
        text = self.parser.dump(self.config, skip_none=False, skip_link_targets=False)
        (folder / name).write_text(text, encoding="utf-8")
        begin(trainer, _plain(self.config), str(getattr(stage, "value", stage)))


def _plain(config: Namespace) -> dict[str, Any]:
    import yaml

    plain: dict[str, Any] = yaml.safe_load(yaml.safe_dump(_texts(config.as_dict())))
    return plain


def _texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _texts(v) for k, v in value.items() if k not in ("config", "__path__")}
    if isinstance(value, (list, tuple)):
        return [_texts(v) for v in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


class OneLineParser(LightningArgumentParser):
    """Lightning's parser, whose complaints are one line, as those of all other commands."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise instead of printing the whole usage; a setting that is almost one there is gets its name.

        Raises:
            ConfigError: always, but in jsonargparse's own parsers of a class's arguments, whose errors it catches.
        """
        if not self.exit_on_error:
            super().error(message, ex)
        stage = next((word for word in self.prog.split() if word in _STAGES), _STAGES[0])
        strange = re.search(r"(?:unrecognized arguments: --|does not accept option ')([\w.-]+)", message)
        near = get_close_matches(strange[1].replace("-", "_"), _settings(self), 1, 0.8) if strange else []
        remedy = f"Perhaps {near[0]} is meant" if near else f"See m2net {stage} --help"
        raise ConfigError(message, remedy=remedy) from ex


_STAGES = ("fit", "validate", "test", "predict")


def _settings(parser: ArgumentParser) -> list[str]:
    """Names of a parser's settings and those of its subcommands."""
    own = [action.dest for action in parser._actions]
    parts = [part for action in parser._actions if isinstance(action.choices, dict) for part in action.choices.values()]
    return own + [name for part in parts if isinstance(part, ArgumentParser) for name in _settings(part)]


class M2NetCLI(LightningCLI):
    """LightningCLI whose input settings are given once, under ``data.input``, and saved with the model."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link the input settings; write metrics.json and predictions.csv after a test."""
        parser.link_arguments("data.input", "model.input")

    def before_instantiate_classes(self) -> None:
        """Lightning calls this with the configuration read.

        bfloat16 becomes float32, and that is said, where no hardware multiplies it. An average of weights too slow for the run is told.
        """
        stage = self.config.get("subcommand")
        wanted = (self.config[stage] if stage else self.config)["trainer"]
        if wanted["precision"] in ("bf16-mixed", "bf16") and on_cpu(wanted["accelerator"]) and not fast_bfloat16():
            wanted["precision"] = "32-true"
            rank_zero_warn("This CPU has no hardware for bfloat16, which would be far slower: trainer.precision is 32-true instead.")
        if stage in (None, "fit") and (problem := short_average(wanted.get("callbacks"), wanted["max_steps"])):
            rank_zero_warn(problem)

    def before_fit(self) -> None:
        """Lightning calls this before it opens the loggers: a resumed fit goes on in its Weights & Biases run."""
        check_writable(self.trainer)
        keep_curves(self.trainer)
        if self.config["fit"].get("ckpt_path"):
            take_up(self.trainer)

    def before_test(self) -> None:
        """Lightning calls this before it opens the loggers: the curves of the fit are not lost."""
        keep_curves(self.trainer)

    before_validate = before_predict = before_test

    def after_test(self) -> None:
        """Lightning calls this below its table of figures: what their scores are."""
        print_scales(self.model)

    after_validate = after_test

    def after_fit(self) -> None:
        """Lightning calls this after a fit: weights that the configured checkpoints have not kept are not lost."""
        keepers = self.trainer.checkpoint_callbacks
        if keepers and nothing_kept(self.trainer):
            rank_zero_warn(
                f"The fit ended before its ModelCheckpoint kept anything: the last weights are in {keep_last(self.trainer)}. "
                "A checkpoint is kept at a validation, or with every_n_train_steps."
            )
        for keeper in keepers:
            if isinstance(keeper, ModelCheckpoint) and undefined(keeper):
                path = keep_last(self.trainer)
                rank_zero_warn(
                    f"{keeper.monitor} was undefined in every validation (one class only?): {keeper.best_model_path} holds the first "
                    f"weights that were validated, not the best. The last are in {path}."
                )

    def _parse_ckpt_path(self) -> None:
        """Evaluation takes the model and its input from the checkpoint; ``fit`` resumes an unchanged model only.

        Raises:
            CheckpointError: not one of m2net's checkpoints.
            ConfigError: ``fit`` with a checkpoint of another model.
        """
        stage = self.config.get("subcommand")
        path = self.config[stage].get("ckpt_path") if stage else None
        if not path and stage in (None, "fit"):
            return
        if not path:
            raise ConfigError(f"m2net {stage} has no --ckpt_path", expected="the checkpoint to judge", remedy="Give a run's best.ckpt")
        saved = hyper_parameters(read_checkpoint(Path(path)))
        config = self.config[stage]
        if stage == "fit":
            saved = {"weighting": "fixed", "tuning": {}, **saved}  # checkpoints from before there was a choice
            changed = [k for k in _RESUMED if not _same(config["model"].get(k), saved.get(k), k)]
            if changed:
                raise ConfigError(
                    f"--ckpt_path {path} holds a run with another {', '.join(changed)}", expected="the same settings, to resume it",
                    remedy="Leave --ckpt_path out to train anew, or use m2net finetune --from to bring its weights to something new",
                )  # fmt: skip
            if not Tuning.of(saved["tuning"]).needs_start:
                config["model"]["start_from"] = config["model"]["encoder_weights"] = None  # the checkpoint goes further
            return
        chosen = config["model"].get("mirror")
        for key, value in saved.items():
            config["model"][key] = value
        if chosen is not None:
            config["model"]["mirror"] = chosen
        config["data"]["input"] = saved["input"]


def on_cpu(accelerator: Any) -> bool:
    """Whether Lightning would run on the CPU if asked for this accelerator."""
    return accelerator == "cpu" or (accelerator == "auto" and not torch.accelerator.is_available())


_RESUMED = ("network", "tasks", "input", "weighting", "optimizer", "schedule", "warmup", "tuning")


def _same(configured: Any, saved: Any, key: str) -> bool:
    if key == "input":
        from m2net.bags.inputs import InputSpec

        return InputSpec.of(configured) == InputSpec.of(saved)
    if key == "optimizer" and not configured:
        configured = DEFAULT_OPTIMIZER
    if key == "tuning":
        return Tuning.of(_texts(configured or {})) == Tuning.of(saved)
    return bool(_texts(configured) == _texts(saved))


def make_cli(argv: list[str], *, run_now: bool = True) -> M2NetCLI:
    """Build the command line; with ``run_now`` it also runs the subcommand in ``argv``."""
    for word in argv:
        path = Path(word.partition("=")[2] if word.startswith("-") else word)
        if path.suffix.lower() in (".yaml", ".yml") and path.is_file():
            check_yaml(path)  # jsonargparse would take the last of two values with one name
    keep_big_blocks()
    keep_private()
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")  # the words come from m2net's own main()
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training")  # batch statistics that are kept, a frozen encoder
    return M2NetCLI(
        M2NetModule,
        BagDataModule,
        args=argv,
        run=run_now,
        save_config_callback=SaveConfig if run_now else None,
        seed_everything_default=0,
        parser_class=OneLineParser,
        trainer_defaults={"callbacks": [ResultsWriter(), Watcher(), LastWeights()]},
        auto_configure_optimizers=False,
    )


def _refused_by_lightning(error: Exception) -> bool:
    """Whether Lightning refused a setting: it raised the error, and no room of m2net below the command line had called it."""
    rooms = [str(frame.f_globals.get("__name__", "")).split(".") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return rooms[-1][0] in ("pytorch_lightning", "lightning_fabric") and not any(r[0] == "m2net" and r[1:2] != ["cli"] for r in rooms)


@contextmanager
def lightning_run() -> Iterator[None]:
    """What Lightning cannot run is the user's to mend, and the Weights & Biases run ends with the command.

    Raises:
        ConfigError: Lightning cannot run it.
        SystemExit: with 143, as shells say of SIGTERM; Lightning itself ends with 0 then, as if it were done.
    """
    try:
        yield
    except SIGTERMException as stopped:
        print("m2net: stopped by SIGTERM before its end; a fit goes on from a checkpoint of it with --ckpt_path.", file=sys.stderr)
        raise SystemExit(128 + signal.SIGTERM) from stopped
    except MisconfigurationException as error:
        raise ConfigError(f"Lightning cannot run this configuration: {error}") from error
    except (ValueError, RuntimeError) as error:
        if not _refused_by_lightning(error):
            raise
        raise ConfigError(f"Lightning cannot run this configuration: {error}") from error
    except Exception as error:
        if (type(error).__module__, type(error).__name__) != ("wandb.errors.errors", "UsageError"):  # wandb is imported where it is used
            raise
        raise ConfigError(
            f"Weights & Biases refused the run: {' '.join(str(error).split())}", expected="a login, or offline: true",
            remedy="Run wandb login, or set the logger's offline to true and wandb sync its folder later",
        ) from error  # fmt: skip
    finally:
        finish()


def run(argv: list[str]) -> int:
    """Run one of Lightning's subcommands."""
    with lightning_run():
        make_cli(argv)
    return 0
