"""Millrace and its peers, side by side: same machine, same servers, same transactions, in turn.

| module | holds |
|---|---|
| cli | the flags |
| cases | which peers there are, and what each does not do |
| harness | one run of one case, from an empty database to checked figures |
| servers | Kafka and Postgres, and what a run makes there |
| workload | publishing it, and reading it back |
| binary, connect, clients | the peers as processes: millrace, Kafka Connect, small clients |
| copying, transfers, consuming | what those clients do, each a program of its own |
| processes, meter | what it costs: CPU, memory, WAL |
| conditions, record, report | what is kept, and the table of it |
"""
