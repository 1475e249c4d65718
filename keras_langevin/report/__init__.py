"""What an ensemble's numbers mean, as a table in words and as a page with figures."""

from keras_langevin.predictive.row import Row
from keras_langevin.report.findings import Finding
from keras_langevin.report.make import make_report
from keras_langevin.report.report import Report

__all__ = ["Finding", "Report", "Row", "make_report"]
