PD_MODULE([router], [router role])
