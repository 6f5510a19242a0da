//go:build cgo && linux

package main

const withPKCS11 = true
