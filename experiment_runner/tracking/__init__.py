"""Copies of runs at an experiment tracker."""
