"""What may leave the site: closed event types, egress guard, ledger, outbox, publisher."""
