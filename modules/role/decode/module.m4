PD_MODULE([decode], [decode role])
