#!/bin/sh
# A solver that starts children, one of them in a session of its own, and never ends.
sleep "$1" &
setsid sleep "$1" &
sleep "$1"
