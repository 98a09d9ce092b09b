"""The configuration of the fold: one section an operator, defined beside the operator."""

from dataclasses import dataclass, field
from typing import Annotated

from thalweg.operators.admission import AdmissionConfiguration
from thalweg.operators.behaviors import NEVER_MS, BehaviorsConfiguration
from thalweg.operators.error_memory import CorrectionConfiguration, ErrorMemoryConfiguration
from thalweg.operators.facts import FactsConfiguration
from thalweg.operators.features import FeaturesConfiguration
from thalweg.operators.joiner import JoinerConfiguration
from thalweg.operators.learner import BUILT_IN, LearnerConfiguration
from thalweg.operators.lessons import LessonsConfiguration
from thalweg.operators.objectives import ObjectivesConfiguration
from thalweg.operators.policies import RankingConfiguration
from thalweg.operators.sdim import SdimConfiguration
from thalweg.operators.structures.texts import BLOCK_BYTES
from thalweg.schemas.bounds import MS_MAX, ROWS_MAX, check, within
from thalweg.schemas.limits import LimitsConfiguration
from thalweg.schemas.mapping import MappingConfiguration

ROWS_MIN = 1_024


@dataclass(frozen=True, kw_only=True, slots=True)
class TableConfiguration(AdmissionConfiguration):
    """The collisionless table and its frequency filter (`[table]`).

    `rows_limit`: values with a row at most, of all fields; at the limit those that were not updated for longest make
    room for the new ones of a page, when it begins. `expire_time_ms`: a row not updated for so long is freed, by
    default after a hundred years, which is never: nothing is forgotten before memory is short;
    `expire_time_ms_by_field` for single fields.
    """

    rows_limit: Annotated[int, within(ROWS_MIN, ROWS_MAX)] = 1 << 20
    expire_time_ms: Annotated[int, within(1, MS_MAX)] = NEVER_MS
    expire_time_ms_by_field: dict[str, Annotated[int, within(1, MS_MAX)]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Configuration:
    """All that the fold depends on besides its log. `seed` goes into every hash and every initial value."""

    seed: Annotated[int, within(0, (1 << 32) - 1)] = 0
    features: FeaturesConfiguration = field(default_factory=FeaturesConfiguration)
    facts: FactsConfiguration = field(default_factory=FactsConfiguration)
    table: TableConfiguration = field(default_factory=TableConfiguration)
    behaviors: BehaviorsConfiguration = field(default_factory=BehaviorsConfiguration)
    sdim: SdimConfiguration = field(default_factory=SdimConfiguration)
    joiner: JoinerConfiguration = field(default_factory=JoinerConfiguration)
    objectives: ObjectivesConfiguration = field(default_factory=ObjectivesConfiguration)
    learner: LearnerConfiguration = field(default_factory=LearnerConfiguration)
    error_memory: ErrorMemoryConfiguration = field(default_factory=ErrorMemoryConfiguration)
    correction: CorrectionConfiguration = field(default_factory=CorrectionConfiguration)
    ranking: RankingConfiguration = field(default_factory=RankingConfiguration)
    lessons: LessonsConfiguration = field(default_factory=LessonsConfiguration)
    limits: LimitsConfiguration = field(default_factory=LimitsConfiguration)
    mapping: MappingConfiguration = field(default_factory=MappingConfiguration)

    def __post_init__(self) -> None:
        """Raise ValueError where sections contradict each other."""
        check(self)
        object.__setattr__(self, "joiner", self.objectives.joined(self.joiner))
        if self.objectives.is_joint and self.learner.model != BUILT_IN:
            raise ValueError(
                "objectives: several need the built-in model (learner.model), another one learns one label"
            )
        if self.objectives.is_joint and self.lessons.enabled:
            raise ValueError("lessons.enabled needs a single objective: lessons carry one label, and no value of it")
        if self.behaviors.users_limit <= self.joiner.waiting_limit:
            raise ValueError(
                "behaviors.users_limit must be above joiner.waiting_limit: every waiting impression keeps its user"
            )
        if self.lessons.enabled and self.learner.model != BUILT_IN:
            raise ValueError("lessons.enabled needs the built-in model: another one learns from examples alone")
        if self.joiner.text_bytes // BLOCK_BYTES * BLOCK_BYTES < self.limits.kept_bytes:
            raise ValueError("joiner.text_bytes must be at least four times limits.record_bytes, room for any record")
