"""Check, with one task on each worker's queue, that the worker sees exactly the GPUs that gpualloc gave it.

Run it after `gpualloc apply` and `docker compose up`, before the DAGs that do the work:

    airflow dags trigger gpu_allocation_check

or as a health check, on the schedule that GPUALLOC_CHECK_SCHEDULE names (as "@hourly"; none by default). A task waits
its turn on its queue like any other. It fails unless TensorFlow, in a process of that worker, lists as many GPUs as
were given, CUDA names them by the given UUIDs, and each multiplies two matrices rightly. Its log and its XCom name
each device and its memory.

To rehearse where there is no GPU: `--conf '{"stand_in_devices": 2}'` has two logical CPU devices stand in for GPUs.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag, get_current_context, task
from gpualloc_check.check import check_allocation, describe

QUEUES = ("train", "finetune", "evaluate", "inference", "features")
"""One for each GPU worker in compose.yaml, which listens to no other queue."""


@dag(
    dag_id="gpu_allocation_check",
    schedule=os.environ.get("GPUALLOC_CHECK_SCHEDULE") or None,
    catchup=False,
    is_paused_upon_creation=False,  # without a schedule it runs only when asked to
    max_active_runs=1,
    tags=["gpu", "health"],
    doc_md=__doc__,
    params={
        "stand_in_devices": Param(
            0,
            type="integer",
            minimum=0,
            maximum=64,
            title="Stand-in devices",
            description="Logical CPU devices to use in place of GPUs, to rehearse; 0 checks the real GPUs.",
        )
    },
)
def gpu_allocation_check() -> None:
    """Check every worker, each through its own queue, at the same time."""

    # No retries: a worker that sees the wrong GPUs once will see them again.
    @task(retries=0, execution_timeout=timedelta(minutes=15))
    def check() -> dict[str, Any]:
        result = check_allocation(stand_in=get_current_context()["params"]["stand_in_devices"])
        print(describe(result))
        return result

    for queue in QUEUES:
        check.override(task_id=f"check_{queue}", queue=queue)()


gpu_allocation_check()
