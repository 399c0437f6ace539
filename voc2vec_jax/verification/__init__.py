"""Proof that published weights compute here what they compute elsewhere."""
