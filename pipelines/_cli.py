"""What every job does with its command line: flags, recipes and overrides, errors as one line, the exit status."""

import dataclasses
import difflib
import errno
import os
import pathlib
import re
import sys
import typing
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from absl import flags
from absl import logging as absl_logging
from ml_collections import config_flags

from nmt_keras import files
from nmt_keras.config import DecodingConfig, reference
from nmt_keras.errors import Failure, Stopped, UserError, WorkerLost
from pipelines._process import quiet, report
from pipelines._signals import interrupt_on_sigterm

if TYPE_CHECKING:
    from nmt_keras.config import ExperimentConfig
    from nmt_keras.inference.minimum_bayes_risk import MBROptions
    from nmt_keras.inference.search import Sampling

STATUS_FINDINGS = 1
STATUS_USER_ERROR = 2
STATUS_STOPPED = 75  # by a signal, with the state saved
STATUS_INTERRUPTED = 130
_LIMITS = ("max_source_length", "max_source_characters", "max_request_sentences")
_CALLED_OTHERWISE = {  # what the flag of a job is in others
    "target": ("reference",),
    "reference": ("target",),
    "source": ("input",),
    "input": ("source",),
}
_ALIKE = 0.65  # of 1: how alike names are that are proposed for one that is not known
_RECIPE_OF_RUN = pathlib.Path(__file__).with_name("_recipe_of_run.py")


def run(
    define: Callable[[flags.FlagValues, list[str]], None],
    job: Callable[[flags.FlagValues], int | None],
    doc: str | None,
    argv: Sequence[str] | None = None,
    positional: str = "",
) -> int:
    """Parses the command line, runs a job and returns the process's exit status.

    Args:
        define: defines the job's flags; it is given the arguments too, which recipe flags look through for overrides.
        job: does the work; None is 0.
        doc: what `--help` says above the flags.
        argv: the arguments; those of the process if None.
        positional: the list flag that arguments without a flag belong to; "" refuses them.

    Returns:
        0 ok, 1 findings or a training that failed, 2 a user's error, which was printed as one line, 75 stopped by a
        signal or the loss of a worker, with what was done saved, 130 interrupted.
    """
    absl_logging.set_verbosity(absl_logging.WARNING)
    arguments = list(sys.argv[1:] if argv is None else argv)
    values = flags.FlagValues()
    interrupt_on_sigterm()
    try:
        arguments = _recipes_of_runs(arguments)
        define(values, ["", *arguments])
        flags.DEFINE_bool("quiet", False, "No bars, no rows of the log, nothing on what is loaded.", flag_values=values)
        if {"--help", "-h", "-help", "--helpfull", "-helpfull"} & set(arguments):
            is_full = bool({"--helpfull", "-helpfull"} & set(arguments))
            print(f"{(doc or '').strip()}\n\n" + "\n".join([*_help(values), *_help_on_fields(values, is_full)]))
            return 0
        _parse(values, arguments, positional)
        with quiet(values.quiet):
            return job(values) or 0
    except Failure as error:
        _fail(error)
        return STATUS_FINDINGS
    except WorkerLost as error:
        _fail(error)
        return STATUS_STOPPED
    except (UserError, flags.Error) as error:
        return _fail(error)
    except BrokenPipeError:  # whoever read the output has enough
        sys.stdout = open(os.devnull, "w")
        return 0
    except OSError as error:
        return _fail(_of_system(error))
    except Stopped as stopped:
        print(f"{stopped} before the first step of this job; the same command goes on", file=sys.stderr)
        return STATUS_STOPPED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return STATUS_INTERRUPTED


def run_with_rest(
    define: Callable[[flags.FlagValues, list[str]], None],
    job: Callable[[flags.FlagValues, list[str]], int | None],
    doc: str | None,
    argv: Sequence[str] | None = None,
) -> int:
    """Runs as `run` does a job that is also given what stands behind `--`, which is another program's."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    place = arguments.index("--") if "--" in arguments else len(arguments)
    return run(define, lambda values: job(values, arguments[place + 1 :]), doc, arguments[:place])


def _of_system(error: OSError) -> str:
    """The message for an error of the operating system that no other code has explained."""
    place = "" if error.filename is None else f"{error.filename}: "
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"{place}{error.strerror or error}" + (f"; {files.remedy_of(error)}" if full else "")


def define_inference_flags(values: flags.FlagValues, argv: list[str], searches: bool = True) -> None:
    """Defines the flags of jobs that use a trained model; of the search, a job that does not search takes limits only.

    Raises:
        UserError: an option of the search is unknown, or not for this job.
    """
    flags.DEFINE_list(
        "run_dir",
        None,
        "The run directory of a training job; several with the same tokenizers are an ensemble.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "checkpoint",
        "best",
        "best, latest, averaged (the mean of the latest ones), ema (training.ema_decay) or a step.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "target_language",
        "",
        "Of a model of several, its exact code. Default: its data.target_language.",
        flag_values=values,
    )
    if searches:
        define_search_flags(values, argv)
        return
    for argument in argv:
        name = argument.lstrip("-").partition("=")[0]
        if name.startswith("decoding.") and name.removeprefix("decoding.") not in _LIMITS:
            raise UserError(f"--{name} is of searches: this job takes {', '.join(_LIMITS)} alone")
    text = f"Limits instead of the recipe's, as in --decoding.max_source_length=512: {', '.join(_LIMITS)}."
    _define_decoding(values, argv, text)


def define_search_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags of a search.

    Raises:
        UserError: an option of the search is unknown.
    """
    flags.DEFINE_integer("beam_size", None, "Beams; 1 is greedy. Default: the recipe's.", 1, flag_values=values)
    flags.DEFINE_float(
        "length_penalty", None, "Alpha of the length penalty. Default: the recipe's.", flag_values=values
    )
    names = [field.name for field in dataclasses.fields(DecodingConfig)]
    text = f"Options of the search instead of the recipe's, as in --decoding.no_repeat_ngram=3: {', '.join(names)}."
    _define_decoding(values, argv, text)


def _define_decoding(values: flags.FlagValues, argv: list[str], text: str) -> None:
    try:
        config_flags.DEFINE_config_dataclass("decoding", DecodingConfig(), text, values, argv)
    except KeyError as error:  # an unknown field
        raise UserError(f"The options of the search cannot be used: {_explain(error, argv)}") from error


def define_sampling_flags(values: flags.FlagValues) -> None:
    """Defines how translations are drawn, and how one of several is chosen by minimum Bayes risk."""
    flags.DEFINE_integer("seed", 1, "Of samples.", lower_bound=-(2**31), upper_bound=2**31 - 1, flag_values=values)
    flags.DEFINE_float(
        "temperature", 1.0, "Of samples: below 1 is more cautious.", lower_bound=1e-3, flag_values=values
    )
    flags.DEFINE_integer(
        "top_k", 0, "Of samples: only the k most probable pieces; 0 is all.", lower_bound=0, flag_values=values
    )
    flags.DEFINE_float(
        "top_p",
        1.0,
        "Of samples: only the most probable pieces of this total probability.",
        lower_bound=0.0,
        upper_bound=1.0,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "mbr",
        None,
        "Of so many translations of each line take the one that is most like the others.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "mbr_utility",
        "chrf",
        ["chrf", "bleu"],
        "With --mbr: the score that says how like the others one is.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "mbr_candidates", "samples", ["samples", "beam"], "With --mbr: how they are found.", flag_values=values
    )
    flags.DEFINE_bool(
        "mbr_each",
        False,
        "With --mbr: each of several runs finds as many, instead of all together.",
        flag_values=values,
    )


def check_sampling_flags(values: flags.FlagValues, samples: bool = False) -> None:
    """Checks that flags of samples and of --mbr are given where they have an effect.

    Raises:
        UserError: one is not.
    """
    draws = samples or values.mbr is not None and values.mbr_candidates == "samples"
    for name in ("seed", "temperature", "top_k", "top_p"):
        if values[name].present and not draws:
            raise UserError(
                f"--{name} belongs to sampling: give {'--samples=1 or ' * ('samples' in values)}--mbr=16 too"
            )
    for name in ("mbr_utility", "mbr_candidates", "mbr_each"):
        if values[name].present and values.mbr is None:
            raise UserError(f"--{name} belongs to --mbr: give --mbr=16 too")
    if values.mbr_each and len(values.run_dir or ()) < 2:
        raise UserError("--mbr_each is for several runs: give --run_dir=runs/a,runs/b")


def sampling_of(values: flags.FlagValues) -> "Sampling":
    """How translations are drawn."""
    from nmt_keras.inference.search import Sampling

    return Sampling(values.seed, values.temperature, values.top_k, values.top_p)


def mbr_options(values: flags.FlagValues) -> "MBROptions | None":
    """What --mbr asks for; None without it."""
    from nmt_keras.inference.minimum_bayes_risk import MBROptions

    if values.mbr is None:
        return None
    sampling = sampling_of(values) if values.mbr_candidates == "samples" else None
    return MBROptions(values.mbr, values.mbr_utility, sampling, values.mbr_each)


def recipe(values: flags.FlagValues) -> "ExperimentConfig":
    """What --config names.

    Raises:
        UserError: it is no recipe, or none was given.
    """
    from nmt_keras.config import ExperimentConfig

    name = config_flags.get_config_filename(values["config"])
    if values.config is None:
        raise UserError(f"{name} has no get_config() that returns an ExperimentConfig; define one, with its return")
    if not isinstance(values.config, ExperimentConfig):
        raise UserError(
            f"--config={name} is no readable recipe: give a Python file whose get_config() returns an ExperimentConfig"
        )
    values.config.normalise()
    return values.config


def pair_of(name: str) -> tuple[str, str]:
    """The source and the target file that a --data names; the target is "" where one file has both sides.

    Raises:
        UserError: there are more.
    """
    source, _, target = name.partition(",")
    if "," in target:
        raise UserError(
            f"--data is one file of pairs, or two with a comma, source first; repeat it for more. Received: {name}"
        )
    return source, target


def run_dirs(values: flags.FlagValues) -> list[pathlib.Path]:
    """What --run_dir names."""
    return [pathlib.Path(path) for path in values.run_dir]


def decoding_overrides(values: flags.FlagValues) -> dict[str, typing.Any]:
    """The options of the search that the command line gives."""
    given = dict(config_flags.get_override_values(values["decoding"]))
    for name in ("beam_size", "length_penalty"):
        if name in values and values[name].present:
            if name in given:
                raise UserError(f"--{name} and --decoding.{name} are one option: give one of them")
            given[name] = values[name].value
    return given


def overrides(values: flags.FlagValues) -> dict[str, typing.Any]:
    """The options of the search and the target language that the command line gives, by the paths of their fields."""
    given = {f"decoding.{name}": value for name, value in decoding_overrides(values).items()}
    if values.target_language:
        given["data.target_language"] = values.target_language
    return given


def _help(values: flags.FlagValues) -> list[str]:
    return [
        f"  --{name}: {values[name].help}"
        + (f" Default: {values[name].default}." if values[name].default and name != "decoding" else "")
        for name in values
        if name not in ("flagfile", "undefok")
    ]


def _help_on_fields(values: flags.FlagValues, is_full: bool) -> list[str]:
    """The part of --help on the fields of a recipe, for jobs that take one."""
    if "config" not in values:
        return []
    if not is_full:
        return ["", "Every field of the recipe is a flag too, as in --config.model.d_model=256; --helpfull lists them."]
    return ["", "Every field of the recipe is a flag too:", *reference.help_lines()]


def _recipes_of_runs(arguments: list[str]) -> list[str]:
    """Replaces a --config that is a run, or a run's config.json, by the recipe that reads it.

    Raises:
        UserError: --config is another file that is no Python.
    """
    found = []
    for number, argument in enumerate(arguments):
        name, equals, path = argument.partition("=")
        if name.lstrip("-") != "config" or not argument.startswith("-") or not equals:
            before = arguments[number - 1] if number else ""
            name, path = (before, argument) if before in ("-config", "--config") else ("", "")
        if name:
            place = pathlib.Path(path)
            place = place / "config.json" if place.is_dir() else place
            if place.suffix == ".json" and place.is_file():
                argument = argument[: len(argument) - len(path)] + f"{_RECIPE_OF_RUN}:{place}"
            elif place.is_file() and place.suffix != ".py":
                raise UserError(
                    f"--config={path} is no recipe: give a Python file whose get_config() returns an ExperimentConfig, "
                    "or the config.json of a run"
                )
        found.append(argument)
    return found


def _say_what_is_given_twice(values: flags.FlagValues, arguments: Sequence[str]) -> None:
    """Refuses a flag that is given twice with two values. Of an option of --config or --decoding the last value is
    taken and reported, as scripts that append to a command expect.

    Raises:
        UserError: a flag is given twice.
    """
    given: dict[str, list[str]] = {}
    for argument, following in zip(arguments, [*arguments[1:], ""]):
        name, equals, value = argument.lstrip("-").partition("=")
        if not equals and name in values and not isinstance(values[name], flags.BooleanFlag):
            equals, value = "=", following
        if argument.startswith("-") and equals:
            given.setdefault(name, []).append(value)
    for name, texts in given.items():
        if len(set(texts)) < 2 or name in ("flagfile", "undefok"):
            continue
        if name.startswith(("config.", "decoding.")):
            report(f"--{name} is given {len(texts)} times: the last one is taken, {texts[-1]}")
        elif name in values and not isinstance(values[name], flags.MultiFlag):
            several = (
                " as a list, with commas"
                if isinstance(values[name].default, list) or isinstance(values[name].parser, flags.BaseListParser)
                else " once"
            )
            raise UserError(f"--{name} is given {len(texts)} times ({', '.join(texts)}): give it{several}")


def _parse(values: flags.FlagValues, arguments: list[str], positional: str = "") -> None:
    _say_what_is_given_twice(values, arguments)
    try:
        rest = values(["", *arguments])
    except flags.UnrecognizedFlagError as error:
        if error.flagname.startswith("config.") and "config" in values:
            raise UserError(f"--{error.flagname} changes a recipe: give --config, the recipe, too") from error
        nearest = _of_other_jobs(values, error.flagname) or _nearest(
            error.flagname, [name for name in values if name not in ("flagfile", "undefok")]
        )
        meant = f": did you mean {' or '.join(f'--{name}' for name in nearest)}?" if nearest else ";"
        raise UserError(f"Unknown command line flag --{error.flagname}{meant} --help lists all") from error
    except flags.Error as error:
        message, traceback, cause = str(error).partition("Traceback")
        explained = _explain_value(values, message) or _explain_recipe(message + cause)
        if explained:
            raise UserError(explained) from error
        if "get_config() takes 0 positional arguments" in message + cause:
            message, traceback = (
                "What follows the colon of --config is a preset; this recipe has none, leave it out",
                "",
            )
        raise UserError(message + cause.strip().rpartition("\n")[2] if traceback else message) from error
    except Exception as error:  # a recipe is a program and may raise anything
        explained = _explain_recipe(str(error))
        if explained:
            raise UserError(explained) from error
        raise UserError(f"The recipe or an override of it cannot be used: {_explain(error, arguments)}") from error
    if positional:
        values[positional].value = list(values[positional].value or ()) + rest[1:]
    elif len(rest) > 1:
        raise UserError(f"Unexpected argument {rest[1]!r}; every argument is a --flag=value")


def _of_other_jobs(values: flags.FlagValues, name: str) -> list[str]:
    """The names here of what another job, or a recipe, calls so."""
    others = [other for other in _CALLED_OTHERWISE.get(name, ()) if other in values]
    if not others and "config" in values:
        from nmt_keras.config import ExperimentConfig
        from nmt_keras.config.fields import fields_of

        others = [f"config.{field.path}" for field in fields_of(ExperimentConfig) if field.name == name]
    return others


def _nearest(name: str, known: Sequence[str]) -> list[str]:
    """The names, at most three, that one which is not known may stand for: alike as a whole, or in a word of theirs."""

    def likeness(other: str) -> float:
        def ratio(text: str) -> float:
            return difflib.SequenceMatcher(None, name.replace("-", "_"), text).ratio()

        return max(ratio(other), ratio(other[: len(name)]), *(0.9 * ratio(word) for word in other.split("_")))

    near = sorted((-likeness(other), other) for other in known if likeness(other) >= _ALIKE)
    return [other for value, other in near if value < near[0][0] + 0.05][:3]


def _explain_recipe(message: str) -> str:
    """One line on a mistake in a recipe or an override whose own message explains it badly; "" for other mistakes."""
    from nmt_keras import config

    if "has no attribute 'get_config'" in message:
        return "--config names no recipe: give a Python file whose get_config() returns an ExperimentConfig"
    own = re.search(r"nmt_keras\.errors\.UserError: (.*)", message)
    if own:
        return own[1]
    unknown = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", message)
    if unknown and hasattr(config, unknown[1]):
        valid = ", ".join(typing.get_type_hints(getattr(config, unknown[1])))
        return f"{unknown[2]!r} in the recipe is no field of {unknown[1]}; valid ones: {valid}"
    return ""


def _explain_value(values: flags.FlagValues, message: str) -> str:
    """One line on a value that a flag does not take; "" for other mistakes."""
    reason = r"(?:invalid literal for|could not convert|\S+ is not |value should be one of|\('Non-boolean).*"
    given = re.fullmatch(rf"flag --([\w.]+)=(.*): {reason}", message.strip(), re.DOTALL)
    if not given or given[1] not in values:
        return ""
    name, value = given.groups()
    flag = values[name]
    if isinstance(flag.parser, flags.BooleanParser):
        return f"--{name} must be true or false. Received: {value!r}"
    if isinstance(flag.parser, flags.EnumParser):
        return f"--{name} must be one of {', '.join(flag.parser.enum_values)}. Received: {value!r}"
    if not isinstance(flag.parser, flags.FloatParser | flags.IntegerParser):
        return ""
    rule = "a number" if isinstance(flag.parser, flags.FloatParser) else "a whole number"
    low, high = flag.parser.lower_bound, flag.parser.upper_bound
    if low is not None:
        rule += f" from {low:,} to {high:,}" if high is not None else f", at least {low:,}"
    elif high is not None:
        rule += f", at most {high:,}"
    return f"--{name} must be {rule}. Received: {value!r}"


def _fail(error: object) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return STATUS_USER_ERROR


def _explain(error: Exception, argv: list[str]) -> str:
    """Adds the valid names to an unknown field of `--config`."""
    from nmt_keras.config import ExperimentConfig

    known = {
        section.name: [f.name for f in dataclasses.fields(typing.cast(type, section.default_factory))]
        for section in dataclasses.fields(ExperimentConfig)
    }
    for argument in argv:
        name = argument.lstrip("-").partition("=")[0]
        if not name.startswith(("config.", "decoding.")):
            continue
        section, _, leaf = name.removeprefix("config.").partition(".")
        if section not in known:
            return f"unknown section {section!r} in {argument!r}; valid ones: {', '.join(known)}"
        if leaf not in known[section]:
            near = difflib.get_close_matches(leaf, known[section], 3)
            remedy = f"did you mean {' or '.join(near)}?" if near else f"valid ones: {', '.join(known[section])}"
            return f"unknown field {leaf!r} in {argument!r}; {remedy}"
    return f"{type(error).__name__}: {error}"
