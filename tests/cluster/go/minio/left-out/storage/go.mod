module cloud.google.com/go/storage

go 1.26

require google.golang.org/api v0.230.0

replace google.golang.org/api => ../api
