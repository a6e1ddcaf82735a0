PD_MODULE([openai], [adapter for servers with the OpenAI API])
