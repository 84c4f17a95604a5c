"""Two-way sync between CRMs and the Wallet App loyalty API that never awards points twice."""
