"""Classifiers on fixed features: SGD, exact logistic regression, nearest neighbours."""
