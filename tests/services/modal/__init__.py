"""Modal on loopback: the unmodified client deploys to it and calls it; inputs run in Modal's own container
entrypoint, in processes of this machine. `harness.modal_server` starts one."""
