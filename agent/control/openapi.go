package control

import (
	_ "embed"
	"fmt"
	"io"
	"net/http"
)

//go:embed openapi.yaml
var openapi string

// describe sends the description of the interface.
func describe(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", contentYAML)
	if _, err := io.WriteString(w, openapi); err != nil {
		return fmt.Errorf("send description: %w", err)
	}
	return nil
}
