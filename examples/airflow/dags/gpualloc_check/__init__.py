"""Whether this worker sees exactly the GPUs that gpualloc gave it.

The DAG gpu_allocation_check uses it; by hand, it is:

    docker compose exec -w /opt/airflow/dags worker-train python -m gpualloc_check
"""
