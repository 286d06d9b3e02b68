"""`JobStoreConformance`: every rule of the store contract as a test that any store can be held to.

Subclass it in a test module of your own and say how a store is made::

    from openagents_json.testing import JobStoreConformance

    class TestMyStore(JobStoreConformance):
        def make_store(self, clock):
            return MyStore(clock=clock)

The rules come from the docstrings of `openagents_json.job.storage.base` and from those of the changes a store
accepts; tests look at what a store answers and holds, never at how. They need pytest and pytest-asyncio (in either
of its modes), and take a store's time from the clock they hand it. A store that needs something made first (a
directory, an empty database) gets it from an autouse fixture of the subclass, which keeps it on ``self``::

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path):
        self.directory = tmp_path
"""

from __future__ import annotations

from openagents_json.testing._rules.batches import BatchRules
from openagents_json.testing._rules.cascades import CascadeRules
from openagents_json.testing._rules.claims import ClaimRules
from openagents_json.testing._rules.concurrency import ConcurrencyRules
from openagents_json.testing._rules.dependencies import DependencyRules
from openagents_json.testing._rules.lifetime import LifetimeRules
from openagents_json.testing._rules.listeners import ListenerRules
from openagents_json.testing._rules.outcomes import OutcomeRules
from openagents_json.testing._rules.queries import QueryRules
from openagents_json.testing._rules.recovery import RecoveryRules
from openagents_json.testing._rules.removal import RemovalRules
from openagents_json.testing._rules.transitions import TransitionRules
from openagents_json.testing._rules.values import ValueRules
from openagents_json.testing._rules.workers import WorkerRules


class JobStoreConformance(
    TransitionRules,
    OutcomeRules,
    ValueRules,
    BatchRules,
    ClaimRules,
    DependencyRules,
    CascadeRules,
    RecoveryRules,
    RemovalRules,
    QueryRules,
    WorkerRules,
    ListenerRules,
    LifetimeRules,
    ConcurrencyRules,
):
    """The rules every job store keeps, as tests; a subclass overrides `make_store`, and nothing else.

    Where a rule depends on what the store promises (`JobStore.traits`), it is checked only where it is promised.
    """
