"""The words that a queue says to its database: three tables beside those of a store."""

from __future__ import annotations

from typing import Final

QUEUE: Final = {
    "queue_tasks": (
        "CREATE TABLE queue_tasks (number INTEGER PRIMARY KEY, name TEXT NOT NULL,"
        " label TEXT NOT NULL, identity TEXT NOT NULL, job TEXT NOT NULL, seal BLOB NOT NULL,"
        " owner TEXT NOT NULL, seen REAL NOT NULL, asked REAL NOT NULL, lease REAL NOT NULL,"
        " overdue REAL, answer TEXT, theta BLOB, answer_seal BLOB)"
    ),
    "queue_claims": (
        "CREATE TABLE queue_claims (number INTEGER PRIMARY KEY, task TEXT NOT NULL,"
        " worker TEXT NOT NULL, taken REAL NOT NULL, until REAL NOT NULL)"
    ),
    "queue_workers": (
        "CREATE TABLE queue_workers (number INTEGER PRIMARY KEY, name TEXT NOT NULL,"
        " identity TEXT NOT NULL, joined REAL NOT NULL, until REAL NOT NULL,"
        " solves INTEGER NOT NULL)"
    ),
    "queue_tasks_by_name": "CREATE UNIQUE INDEX queue_tasks_by_name ON queue_tasks (name)",
    "queue_tasks_by_owner": "CREATE INDEX queue_tasks_by_owner ON queue_tasks (owner)",
    "queue_claims_by_task": "CREATE INDEX queue_claims_by_task ON queue_claims (task)",
    "queue_workers_by_name": "CREATE UNIQUE INDEX queue_workers_by_name ON queue_workers (name)",
}
"""Times are seconds since 1970 by the clock of the database, here {now}."""

ADOPT: Final = (
    "UPDATE queue_tasks SET owner = ?, seen = {now} WHERE number = (SELECT MIN(number)"
    " FROM queue_tasks WHERE identity = ? AND job = ? AND owner <> ?"
    " AND (seen < {now} - ? OR substr(owner, 1, ?) = ?)) RETURNING name"
)
SUBMIT: Final = (
    "INSERT INTO queue_tasks (name, label, identity, job, seal, owner, seen, asked, lease, overdue)"
    " VALUES (?, ?, ?, ?, ?, ?, {now}, {now}, ?, ?)"
)
SEEN: Final = "UPDATE queue_tasks SET seen = {now} WHERE owner = ?"
STATE: Final = (
    "SELECT name, answer IS NOT NULL, (SELECT COUNT(*) FROM queue_claims WHERE task = name),"
    " (SELECT COUNT(*) FROM queue_claims WHERE task = name AND until > {now})"
    " FROM queue_tasks WHERE owner = ? ORDER BY number"
)
ANSWER_OF: Final = "SELECT job, answer, theta, answer_seal FROM queue_tasks WHERE name = ?"
REOPEN: Final = (
    "UPDATE queue_tasks SET answer = NULL, theta = NULL, answer_seal = NULL WHERE name = ?"
)
WITHDRAW: Final = (
    "DELETE FROM queue_claims WHERE task = ?",
    "DELETE FROM queue_tasks WHERE name = ?",
)
_OPEN: Final = "answer IS NULL AND identity = ?"
_LIVE: Final = "(SELECT COUNT(*) FROM queue_claims WHERE task = name AND until > {now})"
_TAKEN: Final = "(SELECT MAX(taken) FROM queue_claims WHERE task = name AND until > {now})"
_TAKEN_BY: Final = "(SELECT COUNT(*) FROM queue_claims WHERE task = name AND worker = ?)"
_LOST: Final = "(SELECT COUNT(*) FROM queue_claims WHERE task = name AND until <= {now})"
FREE: Final = (
    f"SELECT name, job, seal, lease FROM queue_tasks WHERE {_OPEN} AND {_LOST} < ?"
    f" AND ({_LIVE} = 0 OR ({_LIVE} = 1 AND {_TAKEN} < {{now}} - overdue AND {_TAKEN_BY} = 0))"
    f" ORDER BY {_LIVE}, CASE WHEN seen < {{now}} - ? THEN 1 ELSE 0 END, number"
)
"""Tasks for a worker: first those that nobody solves, of runs that are alive."""
CLAIM: Final = (
    "INSERT INTO queue_claims (task, worker, taken, until) VALUES (?, ?, {now}, {now} + ?)"
    " RETURNING number"
)
RENEW: Final = (
    "UPDATE queue_claims SET until = {now} + ? WHERE number = ? AND EXISTS (SELECT 1 FROM"
    " queue_tasks WHERE name = task AND answer IS NULL) RETURNING number"
)
GIVE_BACK: Final = "DELETE FROM queue_claims WHERE number = ?"
ANSWER: Final = (
    "UPDATE queue_tasks SET answer = ?, theta = ?, answer_seal = ? WHERE name = ?"
    " AND answer IS NULL RETURNING number"
)
OTHER_VERSIONS: Final = (
    "SELECT DISTINCT identity FROM queue_tasks WHERE label = ? AND identity <> ?"
    " AND answer IS NULL AND seen > {now} - ?"
)
JOIN: Final = (
    "INSERT INTO queue_workers (name, identity, joined, until, solves)"
    " VALUES (?, ?, {now}, {now} + ?, 0)"
    " ON CONFLICT (name) DO UPDATE SET until = excluded.until"
)
COUNT: Final = "UPDATE queue_workers SET solves = solves + 1 WHERE name = ?"
LEAVE: Final = "DELETE FROM queue_workers WHERE name = ?"
FORGET: Final = (
    "DELETE FROM queue_tasks WHERE seen < {now} - ?",
    "DELETE FROM queue_claims WHERE until < {now} - ?",
    "DELETE FROM queue_workers WHERE until < {now} - ?",
)
WORKERS: Final = "SELECT COUNT(*) FROM queue_workers WHERE identity = ? AND until > {now}"
