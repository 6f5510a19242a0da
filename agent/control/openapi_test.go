package control_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/cofferbackup/coffer/agent/control"
)

// document is what the tests read of openapi.yaml.
type document struct {
	Paths      map[string]map[string]operation `yaml:"paths"`
	Components struct {
		Schemas map[string]schema `yaml:"schemas"`
	} `yaml:"components"`
}

type operation struct {
	ID         string `yaml:"operationId"`
	Summary    string `yaml:"summary"`
	Role       string `yaml:"x-coffer-role"`
	Parameters []struct {
		Name, In string
	} `yaml:"parameters"`
	Body      content            `yaml:"requestBody"`
	Responses map[string]content `yaml:"responses"`
}

type content struct {
	Content map[string]struct {
		Schema schema `yaml:"schema"`
	} `yaml:"content"`
}

type schema struct {
	Ref        string            `yaml:"$ref"`
	Type       any               `yaml:"type"`
	Format     string            `yaml:"format"`
	Encoding   string            `yaml:"contentEncoding"`
	Items      *schema           `yaml:"items"`
	Properties map[string]schema `yaml:"properties"`
	Required   []string          `yaml:"required"`
	Strict     *bool             `yaml:"additionalProperties"`
	Enum       []string          `yaml:"enum"`
}

func (s schema) String() string {
	switch {
	case s.Ref != "":
		return strings.TrimPrefix(s.Ref, "#/components/schemas/")
	case s.Items != nil:
		return fmt.Sprintf("%v of %s", s.Type, s.Items)
	}
	return strings.TrimSpace(fmt.Sprintf("%v %s%s", s.Type, s.Format, s.Encoding))
}

func described(t *testing.T) document {
	t.Helper()
	text, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var d document
	if err := yaml.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// rawFields are beside the fields of a type, for paths that are not UTF-8.
func rawFields(of reflect.Type) map[string]string {
	switch of {
	case reflect.TypeFor[control.Entry]():
		return map[string]string{"path_raw": "string base64", "target_raw": "string base64"}
	case reflect.TypeFor[control.DiffEntry]():
		return map[string]string{"path_raw": "string base64"}
	case reflect.TypeFor[control.RestoreRequest]():
		return map[string]string{"target_raw": "string base64", "paths_raw": "array of [string null] base64"}
	}
	return nil
}

// shape is what stands in the description for a Go type. Named types that it refers to
// are added to seen.
func shape(of reflect.Type, seen map[string]reflect.Type, optional bool) string {
	switch {
	case of == reflect.TypeFor[time.Time]():
		return "string date-time"
	case of.Kind() == reflect.Pointer:
		return shape(of.Elem(), seen, optional)
	case of.Kind() == reflect.Slice && optional:
		return "array of " + shape(of.Elem(), seen, true)
	case of.Kind() == reflect.Slice:
		return "[array null] of " + shape(of.Elem(), seen, true)
	case of.PkgPath() != "":
		seen[of.Name()] = of
		return of.Name()
	}
	switch of.Kind() {
	case reflect.Bool:
		return "boolean"
	case reflect.Int:
		return "integer"
	case reflect.Float64:
		return "number"
	case reflect.String:
		return "string"
	}
	return "integer " + of.Kind().String()
}

// properties returns the fields of a struct as they are described, and those of them
// that are always there.
func properties(of reflect.Type, seen map[string]reflect.Type) (props map[string]string, required []string) {
	props = maps.Clone(rawFields(of))
	if props == nil {
		props = map[string]string{}
	}
	for f := range of.Fields() {
		name, more, optional := strings.Cut(f.Tag.Get("json"), ",")
		if optional && !strings.Contains(more, "omit") {
			continue
		}
		props[name] = shape(f.Type, seen, optional)
		if !optional {
			required = append(required, name)
		}
	}
	return props, required
}

// TestDescription: what openapi.yaml says of each verb is so, and it says all.
func TestDescription(t *testing.T) {
	d, seen, requests := described(t), map[string]reflect.Type{"Error": reflect.TypeFor[control.Error]()}, map[string]bool{}
	srv := control.NewServer(control.ServerConfig{Backend: world(), Logger: slog.New(slog.DiscardHandler)})
	ids := map[string]bool{}
	n := 0
	for _, v := range srv.Verbs() {
		op, ok := d.Paths[v.Path][strings.ToLower(v.Method)]
		if !ok {
			t.Errorf("%s %s is not described", v.Method, v.Path)
			continue
		}
		n++
		for _, fault := range compare(v, op, seen, requests) {
			t.Errorf("%s %s: %s", v.Method, v.Path, fault)
		}
		if ids[op.ID] || op.Summary == "" {
			t.Errorf("%s %s: operation %q, summary %q", v.Method, v.Path, op.ID, op.Summary)
		}
		ids[op.ID] = true
	}
	for _, ops := range d.Paths {
		n -= len(ops)
	}
	if n != 0 {
		t.Errorf("%d verbs are described that the agent does not have", -n)
	}
	compareSchemas(t, d, seen, requests)
	// Every method that the agent offers is a verb.
	for m := range reflect.TypeFor[control.Backend]().Methods() {
		if !ids[m.Name] {
			t.Errorf("no verb calls %s", m.Name)
		}
	}
}

// compare tells how a verb and its description differ.
func compare(v control.Verb, op operation, seen map[string]reflect.Type, requests map[string]bool) (faults []string) {
	differ := func(what string, is, says any) {
		if fmt.Sprint(is) != fmt.Sprint(says) {
			faults = append(faults, fmt.Sprintf("%s is %v and described as %v", what, is, says))
		}
	}
	differ("the role", v.Role, op.Role)
	var inPath []string
	for _, p := range op.Parameters {
		if p.In == "path" {
			inPath = append(inPath, p.Name)
		}
	}
	var named []string
	for _, m := range regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(v.Path, -1) {
		named = append(named, m[1])
	}
	differ("the path", named, inPath)
	body := "none"
	if v.In != nil {
		body = "application/json " + shape(v.In, seen, true)
		requests[v.In.Name()] = true
	}
	if v.Raw {
		body = "application/octet-stream <nil>"
	}
	differ("the body", body, only(op.Body))
	out := v.Kind + " <nil>"
	switch {
	case v.Out == reflect.TypeFor[struct{}]():
		out = v.Kind + " object"
	case v.Out != nil:
		out = v.Kind + " " + shape(v.Out, seen, true)
	}
	differ("the reply", out, only(op.Responses[fmt.Sprint(v.Status)]))
	if _, ok := op.Responses["default"]; !ok || len(op.Responses) != 2 {
		differ("the replies", "one good one and the fault", slices.Sorted(maps.Keys(op.Responses)))
	}
	return faults
}

// only is the one kind of content that c describes.
func only(c content) string {
	if len(c.Content) == 0 {
		return "none"
	}
	var all []string
	for kind, one := range c.Content {
		all = append(all, kind+" "+one.Schema.String())
	}
	return strings.Join(all, ", ")
}

// compareSchemas holds the described types against those that verbs take and give.
func compareSchemas(t *testing.T, d document, seen map[string]reflect.Type, requests map[string]bool) {
	t.Helper()
	done := map[string]bool{}
	for len(done) < len(seen) {
		for name, of := range maps.Clone(seen) {
			if done[name] {
				continue
			}
			done[name] = true
			got, ok := d.Components.Schemas[name]
			switch {
			case !ok:
				t.Errorf("type %s is not described", name)
			case of.Kind() == reflect.String:
				if len(got.Enum) == 0 {
					t.Errorf("type %s is described without its values", name)
				}
			default:
				want, required := properties(of, seen)
				is := map[string]string{}
				for p, s := range got.Properties {
					is[p] = s.String()
				}
				if !reflect.DeepEqual(is, want) || !slices.Equal(got.Required, required) {
					t.Errorf("type %s is described as\n%v %v\nand is\n%v %v", name, is, got.Required, want, required)
				}
				if strict := got.Strict != nil && !*got.Strict; strict != requests[name] {
					t.Errorf("type %s: that unknown fields are refused is described as %t", name, strict)
				}
			}
		}
	}
	for name := range d.Components.Schemas {
		if !done[name] {
			t.Errorf("type %s is described, and no verb has it", name)
		}
	}
}

// TestDescriptionServed: the agent tells others how to talk to it.
func TestDescriptionServed(t *testing.T) {
	c := serve(t, world(), nil)
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", c.socket)
	}}}
	resp, err := hc.Get("http://localhost/v1/openapi")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	want, _ := os.ReadFile("openapi.yaml")
	if err != nil || string(got) != string(want) || resp.Header.Get("Content-Type") != "application/yaml" {
		t.Errorf("%d bytes of %s, %v; want %d", len(got), resp.Header.Get("Content-Type"), err, len(want))
	}
}
