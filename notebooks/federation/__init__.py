"""The researcher's side: meet the sites, submit a job, run rounds, evaluate, report.

    import federation

    sites = federation.connect("roster.yaml", email="you@uni.example", password=...)
    job = federation.read_job("notebooks/jobs/train_classifier.py")
    card = sites["st-marys"].dataset("chest-xray").card
    config = job.call("defaults")
    weights = job.call("initial_weights", card, config)
    terms = federation.training_terms(weights, title=..., config=config, runs=12, ...)
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
from federation.causes import Cause
from federation.comparison import Comparison
from federation.description import Description, describe
from federation.errors import FederationError, RefusedError, show_sentences
from federation.evaluation import Evaluation, evaluate
from federation.history import History
from federation.intervals import Estimate
from federation.job import Job, read_job
from federation.leakage import Leakage
from federation.measures import Measures, exact_measures
from federation.optimizers import SGD, Adam, AdamW
from federation.private_terms import private_evaluation_terms, private_training_terms
from federation.process import LearningProcess, Model, build_weighted_fed_avg
from federation.release import NotReleasedError, Release, release
from federation.rounds import run_rounds
from federation.rounds_result import BelowQuorumError, RoundsResult, StoppedError
from federation.seeds import Seeds, run_seeds
from federation.sites import connect
from federation.study_report import Words, report
from federation.subgroups import Subgroups, evaluate_groups
from federation.submission import Federation, Study
from federation.terms import description_terms, evaluation_terms, leakage_terms, training_terms

show_sentences()

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "BelowQuorumError",
    "Cause",
    "Comparison",
    "Description",
    "Estimate",
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
    "Leakage",
    "LearningProcess",
    "Measures",
    "Median",
    "Model",
    "MultiKrum",
    "NormBoundedMean",
    "NotReleasedError",
    "RefusedError",
    "Release",
    "RoundsResult",
    "Scaffold",
    "Seeds",
    "StoppedError",
    "Study",
    "Subgroups",
    "TrimmedMean",
    "Words",
    "build_weighted_fed_avg",
    "connect",
    "describe",
    "description_terms",
    "diagnostics_frame",
    "evaluate",
    "evaluate_groups",
    "evaluation_terms",
    "exact_measures",
    "leakage_terms",
    "private_evaluation_terms",
    "private_training_terms",
    "read_job",
    "release",
    "report",
    "run_rounds",
    "run_seeds",
    "training_terms",
]
