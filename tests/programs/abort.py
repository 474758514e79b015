"""Ends as C programs do on a failed assertion."""

import os

os.abort()
