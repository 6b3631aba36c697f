"""The papers' claims, tried on results: supported, contradicted, undecided or not run. (docs/claims.md)"""
