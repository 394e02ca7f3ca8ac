#!/bin/bash
npm view '@qwen-code/qwen-code' version
