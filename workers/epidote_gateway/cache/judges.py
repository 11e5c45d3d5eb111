"""This file is about a policy together with what it was made into, swapped as one."""

from collections.abc import Mapping
from dataclasses import dataclass

from epidote_gateway.cache.meaning.guards.languages import language_of
from epidote_gateway.cache.policy import DEFAULT_CATEGORY, CachePolicy
from epidote_gateway.cache.protocols import Classifier, Embedder, Guards, Meaning


@dataclass(frozen=True, kw_only=True)
class Judges:
    """A request is judged by one of these from beginning to end, whatever changes meanwhile."""

    policy: CachePolicy
    embedder: Embedder
    classifier: Classifier
    guards: Mapping[str, Guards]  # by category

    def guards_of(self, category: str) -> Guards:
        """Of a category's name, or of `default` for others."""
        return self.guards[self.policy.category(category).name]

    languages: tuple[frozenset[str], ...] = ()  # of each sensitive category's exemplars

    def reads(self, text: str) -> bool:
        """False: in a language in which some sensitive category would not be recognised."""
        language = language_of(text) if self.languages else ""
        return not language or all(language in known for known in self.languages)

    @property
    def vectors(self) -> str:
        """Names the vectors: those of another name can't be compared with them."""
        return f"{self.embedder.name}/{self.policy.embedder.precision}"

    def classifies_like(self, other: "Judges") -> bool:
        """Whether every question finds the category that it found under `other`."""

        def decisive(judges: Judges) -> object:
            policy = judges.policy
            exemplars = [(c.name, c.exemplars, c.enabled) for c in policy.categories]
            return judges.embedder.name, policy.classifier, exemplars

        return decisive(self) == decisive(other)


async def make_judges(policy: CachePolicy, meaning: Meaning) -> Judges:
    """Loads the model where that is needed, and embeds the exemplars."""
    embedder = await meaning.embedder(policy)
    languages = [{language_of(text) for text in c.exemplars} - {""} for c in policy.sensitive]
    return Judges(
        policy=policy,
        embedder=embedder,
        classifier=await meaning.classifier(policy, embedder),
        guards={
            category.name: meaning.guards(policy, category)
            for category in (*policy.categories, policy.category(DEFAULT_CATEGORY))
        },
        languages=tuple(frozenset(known) for known in languages if known),
    )
