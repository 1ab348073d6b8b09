"""What the processes of one service share in Redis: leases, logs, records and mail.

Knows conversations by their ids and everything else as bytes: neither frames nor sessions.
"""
