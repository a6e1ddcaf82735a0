# SPDX-License-Identifier: Apache-2.0
# Builds, checks and installs one module of pdplane outside of its tree:
#
#   MODULE = spare_blocks
#   SRCS   = spare_blocks.c
#   include $(shell $(or $(PKG_CONFIG),pkg-config) --variable=modmk pdplane)
#
# Targets: all check install uninstall clean.  Honours CC CFLAGS CPPFLAGS LDFLAGS
# LIBS DESTDIR PKG_CONFIG PROVE.  SRCS is by default MODULE.c.  `check` runs the
# tests in t with PD_CONFORM (pdconform), PD_PLANE (pdplane), PD_MODULES (the
# folder of installed modules) and PD_MODULE (the file that was built).
ifeq ($(strip $(MODULE)),)
$(error MODULE must name the module)
endif

PKG_CONFIG ?= pkg-config
PROVE ?= prove
CFLAGS ?= -O2 -g -Wall -Wextra
SRCS ?= $(MODULE).c

pd_var = $(shell $(PKG_CONFIG) --variable=$(1) pdplane)
pd_cflags := $(shell $(PKG_CONFIG) --cflags pdplane)
pd_moduledir := $(call pd_var,moduledir)
pd_confdir := $(call pd_var,confdir)
pd_objs := $(SRCS:.c=.o)
pd_samples := $(wildcard conf/*.sample)

.PHONY: all check install uninstall clean
all: $(MODULE).so

$(pd_objs): %.o: %.c
	$(CC) -std=gnu11 $(pd_cflags) $(CPPFLAGS) $(CFLAGS) -fPIC -fvisibility=hidden -MMD -MP -c -o $@ $<

$(MODULE).so: $(pd_objs)
	$(CC) $(CFLAGS) -shared -Wl,-z,defs $(LDFLAGS) -o $@ $(pd_objs) $(LIBS)

check: all
	PD_CONFORM='$(call pd_var,conform)' PD_PLANE='$(call pd_var,program)' PD_MODULES='$(pd_moduledir)' \
	  PD_MODULE='$(abspath $(MODULE).so)' $(PROVE) t

install: all
	mkdir -p '$(DESTDIR)$(pd_moduledir)'
	cp $(MODULE).so '$(DESTDIR)$(pd_moduledir)/$(MODULE).so.new'
	chmod 755 '$(DESTDIR)$(pd_moduledir)/$(MODULE).so.new'
	mv -f '$(DESTDIR)$(pd_moduledir)/$(MODULE).so.new' '$(DESTDIR)$(pd_moduledir)/$(MODULE).so'
	$(if $(pd_samples),mkdir -p '$(DESTDIR)$(pd_confdir)' && cp $(pd_samples) '$(DESTDIR)$(pd_confdir)')

uninstall:
	rm -f '$(DESTDIR)$(pd_moduledir)/$(MODULE).so'
	$(foreach s,$(notdir $(pd_samples)),rm -f '$(DESTDIR)$(pd_confdir)/$(s)';)

clean:
	rm -f $(pd_objs) $(pd_objs:.o=.d) $(MODULE).so

-include $(pd_objs:.o=.d)
