"""Ways to combine the updates of a round, one algorithm per file; start at `algorithm.py`."""

from federation.aggregation.algorithm import Algorithm, SiteUpdate, State
from federation.aggregation.diagnostics import Diagnostics, diagnostics_frame
from federation.aggregation.fed_adagrad import FedAdagrad
from federation.aggregation.fed_adam import FedAdam
from federation.aggregation.fed_avg import FedAvg
from federation.aggregation.fed_avg_m import FedAvgM
from federation.aggregation.fed_bn import FedBN
from federation.aggregation.fed_nova import FedNova
from federation.aggregation.fed_prox import FedProx
from federation.aggregation.fed_yogi import FedYogi
from federation.aggregation.krum import Krum
from federation.aggregation.median import Median
from federation.aggregation.multi_krum import MultiKrum
from federation.aggregation.norm_bounded_mean import NormBoundedMean
from federation.aggregation.scaffold import Scaffold
from federation.aggregation.trimmed_mean import TrimmedMean

__all__ = [
    "Algorithm",
    "Diagnostics",
    "FedAdagrad",
    "FedAdam",
    "FedAvg",
    "FedAvgM",
    "FedBN",
    "FedNova",
    "FedProx",
    "FedYogi",
    "Krum",
    "Median",
    "MultiKrum",
    "NormBoundedMean",
    "Scaffold",
    "SiteUpdate",
    "State",
    "TrimmedMean",
    "diagnostics_frame",
]
