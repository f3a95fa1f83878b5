"""An experiment: its sections, their checks, and the way to JSON and back."""

import dataclasses
import json
import typing
from dataclasses import dataclass, field

from nmt_keras.config.data import DataConfig
from nmt_keras.config.decoding import DecodingConfig
from nmt_keras.config.model import ModelConfig
from nmt_keras.config.rules import problems_of
from nmt_keras.config.training import TrainingConfig
from nmt_keras.errors import UserError

_OF_FILES = ("train_source", "train_target", "train_example_weights", "train_alignments", "dev_source", "dev_target")
_OF_NAMES = ("train_languages", "dev_languages", "user_symbols", "placeholders")
_OF_TEXTS = ("banned_phrases", "protect")


@dataclass
class ExperimentConfig:
    """One experiment: what a recipe returns and what `config.json` of a run directory holds."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    decoding: DecodingConfig = field(default_factory=DecodingConfig)

    def validate(self) -> None:
        """Checks every field.

        Raises:
            UserError: names all problems, each with the field, its value and the rule.
        """
        self.normalise()
        problems = problems_of(self)
        if problems:
            raise UserError("; ".join(problems))

    def normalise(self) -> None:
        """Turns a single string into a tuple of one, in the fields of several files, folders, languages or texts,
        and targets that are not named into "", one for each source."""
        sections = (self.data, _OF_FILES + _OF_NAMES), (self.training, ("teacher",)), (self.decoding, _OF_TEXTS)
        for section, names in sections:
            for name in names:
                value = getattr(section, name)
                if isinstance(value, str):
                    setattr(section, name, (value,) if value else ())
        for part in ("train", "dev"):  # a file that holds both sides is named once
            if not getattr(self.data, f"{part}_target"):
                setattr(self.data, f"{part}_target", ("",) * len(getattr(self.data, f"{part}_source")))

    def resolve_positions(self) -> None:
        """Sets `model.max_positions` to the longest sentence of training where it is 0."""
        if not self.model.max_positions:
            self.model.max_positions = self.longest_sentence

    @property
    def longest_sentence(self) -> int:
        """The ids of the longest sentence of training."""
        return max(self.data.max_source_length, self.data.max_target_length)

    def to_json(self) -> str:
        """The experiment as JSON, a field a line."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "ExperimentConfig":
        """Reads what `to_json` wrote.

        Raises:
            UserError: the text is not JSON, or has a section, field or value that this version does not know.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"The configuration is not JSON ({error}); restore the config.json of the run") from error
        if not isinstance(values, dict):
            raise UserError("The configuration is no JSON object; restore the config.json of the run")
        sections = {}
        for section in dataclasses.fields(cls):
            kind = typing.cast(type, section.default_factory)
            given = values.pop(section.name, {})
            if not isinstance(given, dict):
                raise UserError(f"Section {section.name} of the configuration is no object; restore the config.json")
            known = {f.name for f in dataclasses.fields(kind)}
            for name in given:
                if name not in known:
                    raise UserError(f"Unknown field {section.name}.{name}; valid ones: {', '.join(sorted(known))}")
            sections[section.name] = kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
        if values:
            raise UserError(f"Unknown section {sorted(values)[0]!r}; valid ones: {', '.join(sorted(sections))}")
        config = cls(**sections)
        config.validate()
        return config
