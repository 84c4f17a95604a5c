"""The connectors that ship with syncsvc, one file per CRM."""
