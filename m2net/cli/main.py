"""Entry point: finds the command, runs it, turns user errors into one line and exit code 2."""

from __future__ import annotations

import importlib
import os
import signal
import sys

from m2net.errors import ConfigError, M2NetError

COMMANDS = {
    "phantom": ("phantom", "make a synthetic cohort"),
    "paint": ("paint", "paint synthetic infection into real lungs that have none"),
    "recipe": ("recipe", "turn a public data set, or your own folders, into a manifest"),
    "verify": ("verify", "judge which studies of a manifest are fit for use"),
    "split": ("split", "give patients folds or a train/val/test part"),
    "prepare": ("prepare", "prepare the studies of a manifest for training"),
    "fit": ("lightning", "train a model"),
    "validate": ("lightning", "judge a model on the validation part"),
    "test": ("lightning", "judge a model on the test part, or on any new manifest"),
    "predict": ("lightning", "predict every study of a manifest"),
    "finetune": ("finetune", "bring a trained model to new studies, and see whether it got better"),
    "crossval": ("crossval", "cross-validate a configuration, with intervals"),
    "localise": ("localise", "hold a model's saliency against infection masks"),
    "audit": ("audit", "see which shortcuts tell a label, and what is left of a model without them"),
    "explain": ("explain", "diagnose new studies, with saliency and boxes"),
    "assess": ("assess", "assess new studies and write a page for each"),
}


def usage() -> str:
    """The overview that ``m2net --help`` prints."""
    lines = [f"  {name:<10}{text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: m2net COMMAND [options]",
            "",
            "Multi-task, multi-instance learning from chest studies with few labels. Research use only.",
            "",
            "commands:",
            *lines,
            "",
            "m2net COMMAND --help tells the options of a command.",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code (2 for what the user can mend, 130 for Ctrl-C outside of Lightning)."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from m2net import __version__

        print(f"m2net {__version__}")
        return 0
    try:
        if arguments[0] not in COMMANDS:
            raise ConfigError(f"the command {arguments[0]!r} is unknown", expected=f"one of {', '.join(COMMANDS)}")
        module = importlib.import_module(f"m2net.cli.{COMMANDS[arguments[0]][0]}")
        return int(module.run(arguments))
    except M2NetError as error:
        print(f"m2net: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("m2net: stopped.", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"m2net: a file could not be read or written ({error}). Check the path, its rights and the free space.", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
