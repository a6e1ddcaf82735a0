PD_MODULE([prefill], [prefill role])
