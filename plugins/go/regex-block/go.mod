module ringway.example/regex-block

go 1.21
