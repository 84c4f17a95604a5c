"""How the commands show things: tables for people, JSON for programs."""
