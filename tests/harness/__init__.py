"""What tests share and users never see: servers, waiting, a ledger of runs, faults on the wire, real workers."""
