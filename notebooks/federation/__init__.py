"""The researcher's side: meet the sites, submit a job, run rounds, evaluate, report.

    import federation

    sites = federation.connect("roster.yaml", email="you@uni.example", password=...)
    job = federation.read_job("notebooks/jobs/train_classifier.py")
    card = sites["st-marys"].dataset("chest-xray").card
    weights = job.call("initial_weights", card, 0)
    terms = federation.training_terms(weights, title=..., dataset="chest-xray", runs=12, ...)
    sites.check(job, terms)             # the findings that each hospital will see
    study = sites.submit(job, terms)    # then: study.status(), study.wait()
    result = federation.run_rounds(study, weights, config, rounds=10)     # FedAvg, or algorithm=…

Runs where the researcher works, and sees what sites release, never images. It may import
`policies`, never `datasites`.
"""

from federation.aggregation import (
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedBN,
    FedNova,
    FedProx,
    FedYogi,
    Krum,
    Median,
    MultiKrum,
    NormBoundedMean,
    Scaffold,
    TrimmedMean,
    diagnostics_frame,
)
from federation.errors import FederationError, RefusedError
from federation.evaluation import Evaluation, evaluate
from federation.history import History
from federation.job import Job, read_job
from federation.rounds import RoundsResult, run_rounds
from federation.sites import connect
from federation.submission import Federation, Study
from federation.terms import evaluation_terms, training_terms

__all__ = [
    "Evaluation",
    "FedAdagrad",
    "FedAdam",
    "FedAvg",
    "FedAvgM",
    "FedBN",
    "FedNova",
    "FedProx",
    "FedYogi",
    "Federation",
    "FederationError",
    "History",
    "Job",
    "Krum",
    "Median",
    "MultiKrum",
    "NormBoundedMean",
    "RefusedError",
    "RoundsResult",
    "Scaffold",
    "Study",
    "TrimmedMean",
    "connect",
    "diagnostics_frame",
    "evaluate",
    "evaluation_terms",
    "read_job",
    "run_rounds",
    "training_terms",
]
