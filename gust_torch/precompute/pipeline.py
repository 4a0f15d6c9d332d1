"""From converted data to latent caches."""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from gust_torch.precompute.encoding import encode
from gust_torch.precompute.options import Compute, Request
from gust_torch.precompute.outcome import Outcome, write_manifest
from gust_torch.precompute.planner import Job, TaskPlanner
from gust_torch.precompute.ranks import Ranks
from gust_torch.precompute.sources import TaskData, find_data
from gust_torch.terminal import silence_lightning


def precompute(
    request: Request, compute: Compute, report: Callable[[Outcome], None] = lambda outcome: None
) -> list[Outcome]:
    """Make the caches of a request, training the encoders first where it names none.

    Every process of the call goes through the same steps; process 0 decides and tells the others. Where
    nothing is missing, no other process is started.

    Args:
        request: Which caches.
        compute: How.
        report: Called with each cache as it is finished, in the first process.

    Returns:
        The caches in the order of tasks and splits; nothing in processes other than the first.

    Raises:
        ValueError: A missing file, data that do not fit the encoder, or a stale cache without `overwrite`.
        OSError: Trouble with a file.
    """
    silence_lightning()
    data = find_data(request)
    with Ranks(compute) as ranks:
        planners = {task: TaskPlanner(data[task], request, compute, ranks.device) for task in request.tasks}
        # What is wrong should show, and what is finished should be said, before other processes start.
        is_needed = ranks.were_started or _is_work_left(request, planners)
        if is_needed:
            ranks.start()
        outcomes = []
        for task in request.tasks:
            for outcome in _make_task(request, compute, data[task], planners[task], ranks):
                if ranks.rank == 0:
                    report(outcome)
                    outcomes.append(outcome)
        if request.manifest is not None and ranks.rank == 0:
            write_manifest(request.manifest, outcomes)
        return outcomes


def _is_work_left(request: Request, planners: Mapping[str, TaskPlanner]) -> bool:
    """Whether a training or a cache is missing; looks at every task, so that no refusal comes late."""
    must_train = [planner.must_train for planner in planners.values()]
    jobs = [
        planner.job(split)
        for planner, has_none in zip(planners.values(), must_train, strict=True)
        if not has_none
        for split in request.splits
    ]
    return any(must_train) or not all(job.is_complete for job in jobs)


def _make_task(
    request: Request, compute: Compute, data: TaskData, planner: TaskPlanner, ranks: Ranks
) -> Iterator[Outcome]:
    """Train the encoder of a task if need be, then make its caches."""
    training = ranks.agree(lambda: planner.begin_training(overwrite=request.overwrite))
    if training is not None:
        training.run()
        ranks.agree(training.finish)
    for split in request.splits:
        job = ranks.agree(partial(planner.job, split))
        if job.is_complete:
            yield ranks.agree(partial(Outcome.of, job.folder))
        else:
            yield _make_cache(job, data, compute, ranks)


def _make_cache(job: Job, data: TaskData, compute: Compute, ranks: Ranks) -> Outcome:
    """Encode what is missing of a cache and give it its name."""
    start = time.monotonic()
    with job.writer() as writer:
        ranks.agree(writer.begin)
        pending = ranks.agree(lambda: writer.pending)
        frames = data.frames(job.plan.split, job.plan.model.spec)
        encode(writer, frames, pending, compute, ranks)
        ranks.wait()
        ranks.agree(writer.finish)
    seconds, num_encoded = time.monotonic() - start, sum(map(len, pending))
    return ranks.agree(lambda: Outcome.of(job.folder, num_encoded=num_encoded, seconds=seconds))
