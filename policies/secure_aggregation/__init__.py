"""Secure aggregation: what hospitals send is masked, and only the sum can be read.

Both sides. A site is a `participant`, the researcher's notebook passes messages on (`messages`) and
takes the masks off the sum (`unmasking`).

References:
    Bonawitz, Ivanov, Kreuter, Marcedone, McMahan, Patel, Ramage, Segal, Seth: Practical Secure
    Aggregation for Privacy-Preserving Machine Learning, CCS 2017, figure 4, with the additions for
    an active adversary.
"""
