"""What an operator runs around a party or a gateway: files of Ray's cluster launcher, and their firewall."""
