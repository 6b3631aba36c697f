"""Jobs, sweeps, results, statistics and the leaderboard.

Data flows one way: recipe -> job -> checkpoint -> measurements -> result file -> leaderboard.
"""
