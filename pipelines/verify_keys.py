"""The questions that `rowbeam verify` asks of the audit tables; each gives run_id and id of whatever breaks what it says.

{own} stands for what is true of the rows, as `r`, of the runs that are checked; {ended}: of those that were not killed.
"""

#: Name of the check -> what holds when nothing comes back, and the question.
QUESTIONS: dict[str, tuple[str, str]] = {
    "runs.run_id": (
        "a run is in table runs once",
        "SELECT run_id, run_id AS id FROM runs r WHERE {own} GROUP BY run_id HAVING count(*) > 1",
    ),
    "rows.run_id": (
        "each row's run is in table runs",
        "SELECT run_id, row_id AS id FROM rows r WHERE {own} AND NOT EXISTS (FROM runs u WHERE u.run_id = r.run_id)",
    ),
    "rows.row_id": (
        "a row is once in a run",
        "SELECT run_id, row_id AS id FROM rows r WHERE {own} GROUP BY run_id, row_id HAVING count(*) > 1",
    ),
    "rows.request_id": (
        "each settled row's request is in table batch_members",
        """
        SELECT run_id, row_id AS id FROM rows r
        WHERE {own} AND request_id IS NOT NULL AND outcome <> 'pending'
            AND NOT EXISTS (FROM batch_members m WHERE m.request_id = r.request_id)
        """,
    ),
    "rows.call_id": (
        "each enriched row has a call, and each row's call is in table calls",
        """
        SELECT run_id, row_id AS id FROM rows r
        WHERE {own} AND ((call_id IS NULL AND outcome = 'enriched')
            OR (call_id IS NOT NULL AND NOT EXISTS (FROM calls c WHERE c.call_id = r.call_id)))
        """,
    ),
    "rows.answered_in_run_id": (
        "each row's call was made by the run the row names, for the row's request",
        """
        SELECT r.run_id, row_id AS id FROM rows r JOIN calls c USING (call_id)
        WHERE {own} AND (r.answered_in_run_id IS DISTINCT FROM c.run_id
            OR r.request_id IS DISTINCT FROM c.root_request_id)
        """,
    ),
    "calls.call_id": (
        "a call is in table calls once",
        """
        SELECT min(run_id) AS run_id, call_id AS id FROM calls r
        GROUP BY call_id HAVING count(*) > 1 AND bool_or({own})
        """,
    ),
    "calls.run_id": (
        "each call's run is in table runs",
        "SELECT run_id, call_id AS id FROM calls r WHERE {own} AND NOT EXISTS (FROM runs u WHERE u.run_id = r.run_id)",
    ),
    "calls.batch_id": (
        "each call's batch is in table batches, of the same run",
        """
        SELECT run_id, call_id AS id FROM calls r
        WHERE {own} AND NOT EXISTS (FROM batches b WHERE b.batch_id = r.batch_id AND b.run_id = r.run_id)
        """,
    ),
    "calls.custom_id": (
        "each LLM call is of a member of its batch, for that member's request",
        """
        SELECT run_id, call_id AS id FROM calls r
        WHERE {own} AND call_type = 'LLM' AND NOT EXISTS (FROM batch_members m
            WHERE m.batch_id = r.batch_id AND m.custom_id = r.custom_id AND m.request_id = r.request_id)
        """,
    ),
    "calls.root_request_id": (
        "each call's first question is in table batch_members",
        """
        SELECT run_id, call_id AS id FROM calls r
        WHERE {own} AND call_type = 'LLM'
            AND NOT EXISTS (FROM batch_members m WHERE m.request_id = r.root_request_id)
        """,
    ),
    "calls.call_index": (
        "the calls of a batch are numbered 0, 1, 2 ... across runs",
        """
        SELECT min(run_id) AS run_id, batch_id AS id FROM calls r
        GROUP BY batch_id HAVING bool_or({own}) AND (min(call_index) <> 0 OR max(call_index) <> count(*) - 1
            OR count(DISTINCT call_index) <> count(*))
        """,
    ),
    "batches.batch_id": (
        "a batch is in table batches once per run",
        "SELECT run_id, batch_id AS id FROM batches r WHERE {own} GROUP BY run_id, batch_id HAVING count(*) > 1",
    ),
    "batches.run_id": (
        "each batch's run is in table runs",
        "SELECT run_id, batch_id AS id FROM batches r WHERE {own} AND NOT EXISTS (FROM runs u WHERE u.run_id = r.run_id)",
    ),
    "batches.request_count": (
        "a batch has as many members as requests",
        """
        SELECT r.run_id, r.batch_id AS id
        FROM batches r LEFT JOIN (SELECT batch_id, count(*) AS n FROM batch_members GROUP BY batch_id) USING (batch_id)
        WHERE {own} AND coalesce(n, 0) <> request_count
        """,
    ),
    "batch_members": (
        "members are in a batch once, numbered 0, 1, 2 ..., and their batch is in table batches",
        """
        SELECT coalesce(min(r.run_id), '?') AS run_id, batch_id AS id
        FROM (SELECT batch_id, min(ordinal) <> 0 OR max(ordinal) <> count(*) - 1
                OR count(DISTINCT ordinal) <> count(*) OR count(DISTINCT custom_id) <> count(*) AS is_broken
            FROM batch_members GROUP BY batch_id)
        LEFT JOIN batches r USING (batch_id)
        GROUP BY batch_id HAVING (bool_or(is_broken) OR min(r.run_id) IS NULL) AND bool_or(coalesce({own}, true))
        """,
    ),
    "dead_letters": (
        "the dead letters are the rows that the audit calls dead-lettered",
        """
        SELECT run_id, row_id AS id
        FROM (SELECT run_id, row_id, count(*) AS n FROM rows r
            WHERE {ended} AND outcome = 'dead_lettered' GROUP BY ALL)
        FULL JOIN (SELECT run_id, row_id, count(*) AS m FROM letters GROUP BY ALL) USING (run_id, row_id)
        WHERE n IS DISTINCT FROM m
        """,
    ),
    "enriched": (
        "the enriched rows are the rows that the audit calls enriched, request by request",
        """
        SELECT run_id, request_id AS id
        FROM (SELECT run_id, request_id, count(*) AS n FROM rows r WHERE {ended} AND outcome = 'enriched' GROUP BY ALL)
        FULL JOIN (SELECT run_id, request_id, count(*) AS m FROM answers WHERE error IS NULL GROUP BY ALL)
        USING (run_id, request_id)
        WHERE n IS DISTINCT FROM m
        """,
    ),
    "ledger.calls": (
        "the calls in the ledger are the calls in table calls",
        """
        SELECT run_id, call_id AS id
        FROM (SELECT run_id, call_id, count(*) AS n FROM calls r WHERE {own} GROUP BY ALL)
        FULL JOIN (SELECT run_id, call_id, count(*) AS m FROM recorded GROUP BY ALL) USING (run_id, call_id)
        WHERE n IS DISTINCT FROM m
        """,
    ),
}
