"""The operators as River estimators: useful without Kafka, a log or a configuration file.

Each estimator is one class over the functions that the fold is made of; its arguments are its only configuration. None
of these modules compiles a function, so they don't belong to the digest of compiled code.
"""

from thalweg.operators.estimators.admitted_embedding import AdmittedEmbedding
from thalweg.operators.estimators.error_memory import ErrorMemory
from thalweg.operators.estimators.sequence_interest import SequenceInterest

__all__ = ["AdmittedEmbedding", "ErrorMemory", "SequenceInterest"]
