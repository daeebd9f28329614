# SPDX-License-Identifier: BSD-3-Clause
#
# make -f filtered_act.mk -j2 BUILD=<folder>
BUILD ?= build
CXX ?= g++
SANITIZE ?= -fsanitize=address,undefined -fno-sanitize-recover=all
FLAGS = -std=c++17 -O1 -g1 -Wall -Wextra -Werror -Wno-unknown-pragmas -I. -I../../csrc/cuda
SOURCES = filtered_act_float32 filtered_act_float16 cuda_host filtered_act
OBJECTS = $(SOURCES:%=$(BUILD)/%.o) $(BUILD)/filtered_act_oracle.o
HEADERS = $(wildcard *.h ../../csrc/*.h ../../csrc/cuda/*.cuh)

$(BUILD)/filtered_act: $(OBJECTS)
	$(CXX) $(SANITIZE) $^ -o $@

# The oracle is plain code and would only be slow under the sanitizers.
$(BUILD)/filtered_act_oracle.o: filtered_act_oracle.cpp $(HEADERS)
	@mkdir -p $(BUILD)
	$(CXX) $(FLAGS) -O2 -c $< -o $@

$(BUILD)/%.o: %.cpp $(HEADERS)
	@mkdir -p $(BUILD)
	$(CXX) $(FLAGS) $(SANITIZE) -c $< -o $@
