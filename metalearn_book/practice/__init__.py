"What holds across methods: tables of many learners, read with care."
