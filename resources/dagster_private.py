"""Parts of Dagster that this project needs and that Dagster may change at any time.

What belongs here: every import of its private modules, each with the public feature that would replace it, and the
treatment of its beta warnings, so that a new version of Dagster is checked in one place. What does not: anything that
the pinned version exports; its storage (``resources/dagster_storage.py``).
"""

import re
import threading
import warnings

import dagster as dg
from dagster._check import CheckError
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    DEFAULT_DATA_VERSION,
    NULL_EVENT_POINTER,
    CachingStaleStatusResolver,
    extract_data_version_from_entry,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.events import (
    AssetMaterializationPlannedData,
    DagsterEventBatchMetadata,
    EngineEventData,
    generate_event_batch_id,
)
from dagster._core.execution.api import execute_run_iterator
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.instance import InstanceRef
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import deserialize_value

__all__ = [  # noqa: RUF022 - grouped by the public feature that would replace them
    # `AssetMaterialization(data_version=…, input_data_versions=…)` for ops that materialize assets
    "CODE_VERSION_TAG",
    "DATA_VERSION_IS_USER_PROVIDED_TAG",
    "DATA_VERSION_TAG",
    "DEFAULT_DATA_VERSION",
    "NULL_EVENT_POINTER",
    "extract_data_version_from_entry",
    "get_input_data_version_tag",
    "get_input_event_pointer_tag",
    # an `AssetCheckEvaluation` that finds the materialization it is about, as `AssetCheckResult` does
    "AssetCheckEvaluationTargetMaterializationData",
    # an event for an output that a step should have made, as assets have it
    "AssetMaterializationPlannedData",
    # `context.log_events`, which stores many in one transaction
    "DagsterEventBatchMetadata",
    "generate_event_batch_id",
    # `execute_in_process` with the job's own executor, one event after the other
    "InMemoryJob",
    "execute_run_iterator",
    # a public interface for run launchers, with its questions to the code server
    "CanCancelExecutionRequest",
    "CanCancelExecutionResult",
    "CheckRunHealthResult",
    "DagsterUserCodeUnreachableError",
    "GRPC_INFO_TAG",
    "WorkerStatus",
    "deserialize_value",
    # `DagsterInstance.from_config` with overrides, and the settings of an instance that is not opened
    "CheckError",
    "InstanceRef",
    "NoOpComputeLogManager",
    # in tests: an event that names a process
    "EngineEventData",
    # in tests: the staleness that pages show, and *Retry from failure*, on `DagsterInstance`
    "CachingStaleStatusResolver",
    "KnownExecutionState",
    "LoadingContextForTest",
    # Dagster's warnings
    "accept_beta",
]

#: Dagster's warnings of what the graph is built on: checks with partitions, one run for many partitions. It is pinned.
BETA = (
    (dg.BetaWarning, "Parameter `backfill_policy` of function `asset` is currently in beta"),
    (dg.PreviewWarning, "Specifying a partitions_def on an AssetCheckSpec is currently in preview"),
)

_lock = threading.Lock()


def accept_beta() -> None:
    """Silence the warnings :data:`BETA` in this process.

    The filters stay: ``warnings.catch_warnings`` swaps the filters of every thread, so threads that build definitions
    at the same time would end each other's silence.
    """
    with _lock:
        for category, text in BETA:
            if ("ignore", re.compile(text, re.IGNORECASE), category, None, 0) not in warnings.filters:
                warnings.filterwarnings("ignore", text, category)
