"""From a suite file to a graph of jobs, each with its identity."""
